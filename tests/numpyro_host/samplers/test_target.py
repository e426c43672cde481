from helpers.samplers.target import *  # noqa: F403
