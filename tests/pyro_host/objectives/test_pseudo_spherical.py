from helpers.objectives.pseudo_spherical import *  # noqa: F403
