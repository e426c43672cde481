from helpers.infer.conditional import *  # noqa: F403
