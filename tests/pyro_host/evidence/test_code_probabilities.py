from helpers.evidence.code_probabilities import *  # noqa: F403
