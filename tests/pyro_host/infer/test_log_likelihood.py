from helpers.infer.log_likelihood import *  # noqa: F403
