from helpers.distributions.column_marginals import *  # noqa: F403
