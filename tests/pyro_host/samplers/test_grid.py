from helpers.samplers.grid import *  # noqa: F403
