from helpers.infer.context import *  # noqa: F403
