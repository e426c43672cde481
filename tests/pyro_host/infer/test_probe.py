from helpers.infer.probe import *  # noqa: F403
