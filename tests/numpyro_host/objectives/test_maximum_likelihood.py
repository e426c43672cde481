from helpers.objectives.maximum_likelihood import *  # noqa: F403
