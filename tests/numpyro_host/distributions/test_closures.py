from helpers.distributions.closures import *  # noqa: F403
