from helpers.infer.check_modes import *  # noqa: F403
