from helpers.wrong_tables import *  # noqa: F403
