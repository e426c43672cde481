from helpers.objectives.objectives import *  # noqa: F403
