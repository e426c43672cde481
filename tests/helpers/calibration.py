"""Simulation-based calibration of a posterior under an energy prior that can be sampled exactly.

The truth is drawn from the prior and data from the truth; then the rank of the truth among draws
of the posterior is uniform, if these draws are what they should be. The same is true of any
function of both; ranks of the energy see a wrong prior that ranks of the value miss.

| Validating Bayesian inference algorithms with simulation-based calibration (Talts et al., 2018)
| Simulation-based calibration checking for Bayesian computation (Modrak et al., 2023)
"""

import numpy as np
from scipy import stats

NUM_DATA_SETS, NUM_DRAWS = 600, 19
BASE_SCALE = 2.0


def two_wells(z):
    """Energy of the prior: wells at the square roots of 2, a barrier of 1 nat at zero."""
    return (z * z / 2 - 1) ** 2


def truths_and_data(seed=0):
    """Draws of exp(-two_wells(z)) N(z; 0, BASE_SCALE^2) on a grid, and data x = z + noise."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(-5, 5, 20001)
    weights = np.exp(-two_wells(grid)) * stats.norm.pdf(grid, scale=BASE_SCALE)
    cdf = np.cumsum(weights) / np.sum(weights)
    truths = np.interp(rng.uniform(size=NUM_DATA_SETS), cdf, grid)
    return truths, truths + rng.normal(size=NUM_DATA_SETS)


def p_values(truths, draws):
    """Of chi-square tests that ranks are uniform: ranks of the value, and of the energy.

    Args:
        truths: Shape `(NUM_DATA_SETS,)`.
        draws: Independent draws of each posterior, shape `(NUM_DRAWS, NUM_DATA_SETS)`.
    """
    assert draws.shape == (NUM_DRAWS, NUM_DATA_SETS)
    ranks = [(draws < truths).sum(0), (two_wells(draws) < two_wells(truths)).sum(0)]
    counts = [np.bincount(rank, minlength=NUM_DRAWS + 1) for rank in ranks]
    return [stats.chisquare(count).pvalue for count in counts]
