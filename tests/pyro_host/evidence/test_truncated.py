from helpers.evidence.truncated import *  # noqa: F403
