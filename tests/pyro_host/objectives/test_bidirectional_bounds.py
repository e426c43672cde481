from helpers.objectives.bidirectional_bounds import *  # noqa: F403
