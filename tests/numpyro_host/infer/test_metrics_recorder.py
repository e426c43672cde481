from helpers.infer.metrics_recorder import *  # noqa: F403
