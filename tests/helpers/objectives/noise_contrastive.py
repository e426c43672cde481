import math
from statistics import NormalDist

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("float64")

X = np.linspace(-1.5, 2.0, 6)
# N(0, 1/2) over N(0, 1): E = x^2 / 2.
LOG_Z = -0.5 * math.log(2.0)


def prior(host, precision, **options):
    base = host.dist.Normal(host.array(0.0), host.array(1.0))
    return host.ebm.EnergyBased(lambda x: 0.5 * precision * x**2, base, **options)


def softplus(x):
    return np.logaddexp(0, x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_value_and_gradients_by_hand(host):
    objective = host.ebm.NoiseContrastive(num_samples=7)
    params = {"precision": 1.3, "log_z": -0.2}
    attached = lambda p: {"log_normalizer": p["log_z"]}  # noqa: E731
    found = host.step(objective, lambda p: prior(host, p["precision"]), params, X, attached)
    y = host.normal_noise(7)
    h, g = (0.65 * z**2 - 0.2 for z in (X, y))
    np.testing.assert_allclose(found.loss, softplus(h) + softplus(-g).mean())
    slopes = sigmoid(h).mean() - sigmoid(-g).mean()
    assert found.gradients["log_z"] == pytest.approx(slopes)
    halves = (sigmoid(h) * X**2 / 2).mean() - (sigmoid(-g) * y**2 / 2).mean()
    assert found.gradients["precision"] == pytest.approx(halves)
    assert found.metrics["accuracy"] == pytest.approx(((h < 0).mean() + (g > 0).mean()) / 2)
    assert set(found.metrics) == {"accuracy", "energy_gap", "energy_scale"}


@pytest.mark.parametrize("has_rsample", [True, False])
@pytest.mark.parametrize("base_loss", [None, "generalized", "likelihood"])
def test_gradients_of_a_base_that_learns(host, base_loss, has_rsample):
    """With the energy a x^2 / 2 held constant in it, and N(m, s) as base."""
    noise, a, log_z, m, s = np.array([-1.1, 0.4, 0.9, 1.7]), 1.3, -0.2, 0.3, 1.2
    y = m + s * noise

    def given(p):
        base = host.given_normal(noise, *p["base"], has_rsample=has_rsample)
        return host.ebm.EnergyBased(lambda x: 0.5 * p["a"] * x**2, base)

    objective = host.ebm.NoiseContrastive(num_samples=len(noise), base_loss=base_loss)
    params = {"base": np.array([m, s]), "a": a, "log_z": log_z}
    found = host.step(objective, given, params, X, lambda p: {"log_normalizer": p["log_z"]})
    h, g = (0.5 * a * z**2 + log_z for z in (X, y))
    np.testing.assert_allclose(found.loss, softplus(h) + softplus(-g).mean())
    halves = (sigmoid(h) * X**2 / 2).mean() - (sigmoid(-g) * y**2 / 2).mean()
    assert found.gradients["a"] == pytest.approx(halves)
    assert found.gradients["log_z"] == pytest.approx(sigmoid(h).mean() - sigmoid(-g).mean())
    of_x, of_y = (np.stack([(z - m) / s**2, (z - m) ** 2 / s**3 - 1 / s]) for z in (X, y))
    if base_loss is None:
        expected = np.zeros(2)
    elif base_loss == "likelihood":
        expected = -of_x.mean(1)
    elif has_rsample:
        expected = (sigmoid(-g) * a * y * np.stack([np.ones(4), noise])).mean(1)
    else:
        expected = -(softplus(-g) * of_y).mean(1)
    np.testing.assert_allclose(found.gradients["base"], expected, atol=1e-12)


def test_a_base_without_density_has_no_likelihood(host):
    flat = host.ebm.EnergyBased(lambda x: 0 * x, host.Implicit())
    objective = host.ebm.NoiseContrastive(num_samples=3, base_loss="likelihood")
    with pytest.raises(ValueError, match="to be 'generalized' .*, got 'likelihood' for"):
        host.loss(objective, flat, X)


def test_minimum(host, optimized):
    """On exact quantiles of N(0, 1/2), a is 1 and A is log Z."""
    shares = (np.arange(1000) + 0.5) / 1000
    x = np.array([NormalDist(0, math.sqrt(0.5)).inv_cdf(share) for share in shares])
    start = {"precision": 0.2, "log_z": 0.0}
    objective = host.ebm.NoiseContrastive(num_samples=2000)
    attached = lambda p: {"log_normalizer": p["log_z"]}  # noqa: E731
    path = host.train(
        objective, lambda p: prior(host, p["precision"]), start, x, attached, num_steps=300
    )
    # A step's 2,000 draws have an error of .03, a mean over 100 steps one of .003.
    assert path["precision"][-100:].mean() == pytest.approx(1.0, abs=0.03)
    assert path["log_z"][-100:].mean() == pytest.approx(LOG_Z, abs=0.015)


def test_each_context_has_its_log_normalizer(host):
    rates = np.array([0.5, 3.0, 8.0])
    base = host.dist.Normal(host.array(0.0), host.array(1.0))
    density = host.ebm.EnergyBased(lambda x, c: 0.5 * c * x**2, base, context=host.array(rates))
    exact, x = host.array(-0.5 * np.log1p(rates)), np.array([0.1, 0.2, 0.3])
    objective = host.ebm.NoiseContrastive(num_samples=50_000)
    loss = host.loss(objective, density, x, log_normalizer=exact)
    grid = np.linspace(-8, 8, 4001)[:, None]
    h = 0.5 * rates * grid**2 - 0.5 * np.log1p(rates)
    normal = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi) * (grid[1] - grid[0])
    expected = softplus(0.5 * rates * x**2 - 0.5 * np.log1p(rates))
    expected = expected + (normal * softplus(-h)).sum(0)
    np.testing.assert_allclose(loss, expected, atol=0.01)


def test_what_does_not_fit(host):
    objective = host.ebm.NoiseContrastive(num_samples=3)
    with pytest.raises(ValueError, match="a base to draw from, got base=None"):
        host.loss(objective, host.ebm.EnergyBased(lambda x: x**2, event_shape=()), X)
    objective = host.ebm.NoiseContrastive(base_loss="generalized")
    with pytest.raises(ValueError, match="a base to draw from, got base=None"):
        host.loss(objective, host.ebm.EnergyBased(lambda x: x**2, event_shape=()), X)
    with pytest.raises(ValueError, match=r"scalar `log_normalizer`, or .* \(\), got shape \(6,\)"):
        host.loss(objective, prior(host, 1.0), X, log_normalizer=host.array(X))
