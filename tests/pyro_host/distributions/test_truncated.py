from helpers.distributions.truncated import *  # noqa: F403
