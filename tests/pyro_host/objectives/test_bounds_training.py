from helpers.objectives.bounds_training import *  # noqa: F403
