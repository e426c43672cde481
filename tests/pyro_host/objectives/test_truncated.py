from helpers.objectives.truncated import *  # noqa: F403
