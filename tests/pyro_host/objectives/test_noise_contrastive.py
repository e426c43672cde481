from helpers.objectives.noise_contrastive import *  # noqa: F403
