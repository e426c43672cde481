from helpers.samplers.replica_exchange import *  # noqa: F403
