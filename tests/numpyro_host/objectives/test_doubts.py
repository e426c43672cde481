from helpers.objectives.doubts import *  # noqa: F403
