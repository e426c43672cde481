from helpers.objectives.column_perturbations import *  # noqa: F403
