from helpers.infer.site_distribution import *  # noqa: F403
