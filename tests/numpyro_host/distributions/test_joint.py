from helpers.distributions.joint import *  # noqa: F403
