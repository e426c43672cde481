from helpers.samplers.smc import *  # noqa: F403
