from helpers.distributions.context import *  # noqa: F403
