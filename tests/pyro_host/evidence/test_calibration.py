from helpers.evidence.calibration import *  # noqa: F403
