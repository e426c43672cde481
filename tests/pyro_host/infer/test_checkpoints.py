from helpers.infer.checkpoints import *  # noqa: F403
