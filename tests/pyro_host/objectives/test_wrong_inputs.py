from helpers.wrong_inputs import *  # noqa: F403
