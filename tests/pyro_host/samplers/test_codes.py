from helpers.samplers.codes import *  # noqa: F403
