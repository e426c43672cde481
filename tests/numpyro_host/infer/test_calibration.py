from helpers.infer.calibration import *  # noqa: F403
