from helpers.samplers.gibbs import *  # noqa: F403
