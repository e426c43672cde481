"""Training on a support narrower than the base's: exp(-a x) N(0, 4) on (0, 1)."""

import math

import numpy as np
import pytest

TRUTH, SIZE = 3.0, 500
GRID = np.linspace(0, 1, 20_001)


def moments(a):
    """Mean and variance of the model."""
    density = np.exp(-a * GRID - GRID**2 / 8)
    mean = np.average(GRID, weights=density)
    return mean, np.average((GRID - mean) ** 2, weights=density)


def data():
    density = np.exp(-TRUTH * GRID - GRID**2 / 8)
    share = np.cumsum(density) / density.sum()
    return np.interp(np.random.default_rng(0).uniform(size=SIZE), share, GRID)


def maximum_likelihood(x):
    a = TRUTH
    for _ in range(20):
        mean, variance = moments(a)
        a = a - (x.mean() - mean) / variance
    return a


def prior_of(host):
    def prior(p):
        unit = host.dist.constraints.interval(0.0, 1.0)
        base = host.dist.Normal(0.0, 2.0)
        return host.ebm.EnergyBased(lambda x: p["a"] * x, base, support=unit)

    return prior


@pytest.mark.parametrize("name", ["MaximumLikelihood", "KALE"])
def test_slope_is_recovered(host, name):
    x = data()
    objective = getattr(host.ebm, name)(num_samples=1000)
    path = host.train(objective, prior_of(host), {"a": 0.0}, x, num_steps=300)
    found, best = path["a"][-100:].mean(), maximum_likelihood(x)
    assert found == pytest.approx(best, abs=0.1)
    assert found == pytest.approx(TRUTH, abs=3 / math.sqrt(SIZE * moments(TRUTH)[1]))


@pytest.mark.parametrize("name", ["MaximumLikelihood", "KALE"])
def test_metrics_are_of_draws_inside(host, name):
    found = host.step(getattr(host.ebm, name)(), prior_of(host), {"a": TRUTH}, data())
    exact = maximum_likelihood_loss(data())
    np.testing.assert_allclose(found.loss, exact, atol=0.4)
    assert 0 < found.metrics["energy_gap"] < TRUTH
    assert 0 < found.metrics["energy_scale"] < TRUTH
    assert 100 < found.metrics["effective_sample_size"] < 200


def maximum_likelihood_loss(x):
    normal = np.exp(-(GRID**2) / 8) / math.sqrt(8 * math.pi)
    log_normalizer = math.log(np.trapezoid(np.exp(-TRUTH * GRID) * normal, GRID))
    return TRUTH * x + x**2 / 8 + 0.5 * math.log(8 * math.pi) + log_normalizer


@pytest.mark.parametrize("name", ["MaximumLikelihood", "KALE"])
def test_base_learns_its_share_inside(host, name):
    """N(m, 1) on the half line: the loss has the gradient -x + m + phi(m) / Phi(m)."""

    def prior(p):
        base = host.dist.Normal(p["m"], 1.0)
        return host.ebm.EnergyBased(lambda x: 0 * x, base, support=host.dist.constraints.positive)

    x = np.array([0.5, 1.5])
    found = host.step(getattr(host.ebm, name)(num_samples=20_000), prior, {"m": 0.0}, x)
    assert found.gradients["m"] == pytest.approx(-x.mean() + math.sqrt(2 / math.pi), abs=0.03)
