from helpers.objectives.slope import *  # noqa: F403
