from helpers.evidence.log_density import *  # noqa: F403
