"""Simulation-based calibration of a posterior under an energy prior that can be sampled exactly.

The truth is drawn from the prior and data from the truth; then the rank of the truth among draws
of the posterior is uniform, if these draws are what they should be. The same is true of any
function of both; ranks of the energy see a wrong prior that ranks of the value miss.

| Validating Bayesian inference algorithms with simulation-based calibration (Talts et al., 2018)
| Simulation-based calibration checking for Bayesian computation (Modrak et al., 2023)
"""

import numpy as np
import pytest
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


def posterior_draws(host, data, strength):
    """Draws for all data sets, under a prior whose energy is `strength` times the true one.

    The latent variable of each data set has independent copies, so that one state of one chain
    is many independent draws.
    """

    def model(x):
        with host.ppl.plate("copies", NUM_DRAWS, dim=-2), host.ppl.plate("data_sets", len(x)):
            base = host.dist.Normal(0.0, BASE_SCALE)
            prior = host.ebm.EnergyBased(lambda z: strength * two_wells(z), base)
            z = host.ppl.sample("z", prior)
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x)

    kernel = host.ebm.SamplerKernel(model, host.ebm.HMC(0.1, num_steps=6))
    mcmc = host.mcmc(kernel, data, num_samples=60, num_warmup=100)
    return host.to_numpy(mcmc.get_samples()["z"][-1])


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


@pytest.mark.once
def test_posteriors_under_energy_priors_are_calibrated(host):
    truths, data = truths_and_data()
    assert min(p_values(truths, posterior_draws(host, data, strength=1.0))) > 1e-3
    assert min(p_values(truths, posterior_draws(host, data, strength=0.0))) < 1e-6
