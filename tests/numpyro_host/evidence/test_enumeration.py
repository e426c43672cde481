from helpers.evidence.enumeration import *  # noqa: F403
