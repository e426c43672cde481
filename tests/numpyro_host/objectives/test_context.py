from helpers.objectives.context import *  # noqa: F403
