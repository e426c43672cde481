from helpers.objectives.gradient_jumps import *  # noqa: F403
