"""Draws on a grid: weights of modes, scales, supports, batches, and what has no grid."""

import math

import numpy as np
import pytest
from scipy import stats

from helpers.samplers.smc import LEFT, two_modes
from pyro_ebm.core.numerics import logsumexp

NUM_DRAWS = 4000


def kolmogorov(draws, cdf):
    """Probability of a distance as large as that of independent draws."""
    return stats.kstest(draws, cdf).pvalue


def test_weights_and_shapes_of_modes(host):
    x = host.sample(two_modes(host, sampler=host.ebm.Grid()), (NUM_DRAWS,))

    def cdf(x):
        return LEFT * stats.norm(-1.5, 0.1).cdf(x) + (1 - LEFT) * stats.norm(1.5, 0.1).cdf(x)

    assert kolmogorov(x, cdf) > 0.001
    # Neighbours in order are independent.
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 4 / math.sqrt(NUM_DRAWS)


@pytest.mark.once
def test_three_modes_in_the_plane_on_a_coarse_grid(host):
    """At radius 3, standard deviation .3; 24 cells along an axis are as wide as .35."""
    angles, shares = np.arange(3) * 2 * np.pi / 3, np.array([0.5, 0.3, 0.2])
    centers = 3 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)

    def energy(x):
        squares = ((x[:, None] - host.array(centers)) ** 2).sum(-1) / 0.18
        return -logsumexp(host.array(np.log(shares)) - squares, -1) - (x**2).sum(-1) / 8

    base = host.dist.Normal(host.array(np.zeros(2)), 2.0).to_event(1)
    sampler = host.ebm.Grid(num_intervals=24, num_moves=16)
    x = host.sample(host.ebm.EnergyBased(energy, base, sampler=sampler), (NUM_DRAWS,))
    nearest = ((x[:, None] - centers) ** 2).sum(-1).argmin(1)
    errors = np.bincount(nearest) / NUM_DRAWS - shares
    assert np.all(abs(errors) < 4 * np.sqrt(shares * (1 - shares) / NUM_DRAWS))
    assert kolmogorov((x - centers[nearest]).ravel(), stats.norm(0, 0.3).cdf) > 0.001


def test_quartic(host):
    base = host.dist.Normal(host.array(0.0), 1.0)
    quartic = host.ebm.EnergyBased(lambda x: x**4 - 2 * x, base, sampler=host.ebm.Grid())
    x = host.sample(quartic, (NUM_DRAWS,))
    grid = np.linspace(-4, 4, 8001)
    density = np.exp(-(grid**4) + 2 * grid - grid**2 / 2)
    assert kolmogorov(x, lambda x: np.interp(x, grid, density.cumsum() / density.sum())) > 0.001


def test_supports(host):
    positive, grid = host.constraints.positive, host.ebm.Grid()
    base = host.dist.Normal(host.array(0.0), 2.0)
    half = host.ebm.EnergyBased(lambda x: 0 * x, base, support=positive, sampler=grid)
    assert kolmogorov(host.sample(half, (NUM_DRAWS,)), stats.halfnorm(0, 2).cdf) > 0.001
    energy, shape = (lambda x: 3 * x - host.xp.log(x)), {"event_shape": ()}
    gamma = host.ebm.EnergyBased(energy, support=positive, sampler=grid, **shape)
    assert kolmogorov(host.sample(gamma, (NUM_DRAWS,)), stats.gamma(2, 0, 1 / 3).cdf) > 0.001


def test_a_grid_for_each_context_and_element_of_a_base(host):
    """Widths of .02 to 2,000 without a base, and a plate."""
    scales = np.array([0.02, 1.0, 2000.0])
    density = host.ebm.EnergyBased(
        lambda x, c: 0.5 * ((x - 5.0) / c) ** 2,
        event_shape=(),
        context=host.array(scales),
        sampler=host.ebm.Grid(),
    )
    x = host.sample(density.expand((4, 3)), (1000,))
    assert x.shape == (1000, 4, 3)
    for column, scale in zip(x.reshape(-1, 3).T, scales, strict=True):
        assert kolmogorov(column, stats.norm(5, scale).cdf) > 0.001


def test_three_dimensions_through_a_generator(host):
    """A narrow mode far out in the latent space of a base."""

    def energy(x):
        return ((x - 4.0) ** 2).sum(-1) / 0.02

    latent = host.dist.Normal(host.array(np.zeros(3)), 1.0).to_event(1)
    base = host.ebm.Pushforward(latent, lambda z: 2 * z)
    x = host.sample(host.ebm.EnergyBased(energy, base, sampler=host.ebm.Grid()), (NUM_DRAWS,))
    # Precision 100 at 4, 1 / 4 at 0.
    law = stats.norm(400 / 100.25, 100.25**-0.5)
    assert kolmogorov(x.ravel(), law.cdf) > 0.001


def test_what_has_no_grid(host):
    grid = host.ebm.Grid()
    four = host.ebm.EnergyBased(lambda x: (x**2).sum(-1), event_shape=(2, 2), sampler=grid)
    with pytest.raises(ValueError, match=r"1 to 3 dimensions .* for Grid\(.*\), got 4: use SMC"):
        host.sample(four, (3,))
    heavy = host.ebm.EnergyBased(lambda x: 0 * x, event_shape=(), sampler=grid, validate_args=True)
    with pytest.raises(ValueError, match="Expected a box that encloses EnergyBased"):
        host.sample(heavy, (3,))
    base = host.dist.Normal(host.array(0.0), 1.0)
    coarse = host.ebm.EnergyBased(
        lambda x: 5e3 * (x % 1.0 - 0.5) ** 2,
        base,
        sampler=host.ebm.Grid(num_intervals=8),
        validate_args=True,
    )
    with pytest.warns(UserWarning, match=r"cells of Grid\(num_intervals=8, .* are too large"):
        host.sample(coarse, (100,))
