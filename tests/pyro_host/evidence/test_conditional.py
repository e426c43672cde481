from helpers.evidence.conditional import *  # noqa: F403
