from helpers.samplers.invariance import *  # noqa: F403
