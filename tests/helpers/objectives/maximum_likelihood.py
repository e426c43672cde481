import math

import numpy as np
import pytest

from helpers.objectives.step import assert_mean
from helpers.oracles import (
    LOG_NORMALIZER_QUARTIC,
    gaussian_log_normalizer,
    quartic_likelihood,
    quartic_likelihood_gradient,
)

pytestmark = pytest.mark.usefixtures("float64")

X = np.linspace(-1.5, 2, 6)
LOG_ROOT = 0.5 * math.log(2 * math.pi)


def density(host, energy, *base):
    return host.ebm.EnergyBased(energy, host.dist.Normal(*map(host.array, base)))


def test_value_is_the_negative_log_likelihood(host):
    objective = host.ebm.MaximumLikelihood(num_samples=400_000)
    loss = host.loss(objective, density(host, lambda x: x**4 / 4, 0.0, 1.0), X)
    exact = X**4 / 4 + X**2 / 2 + LOG_ROOT + LOG_NORMALIZER_QUARTIC
    # The weights exp(-x^4 / 4) are at most 1: their standard deviation is below 1/2.
    error = 0.5 / math.exp(LOG_NORMALIZER_QUARTIC) / math.sqrt(400_000)
    np.testing.assert_allclose(loss, exact, atol=4 * error, rtol=0)
    assert exact.mean() == pytest.approx(quartic_likelihood(X, 1.0, 0.0, 0.0), abs=1e-9)


def test_value_is_low_on_average(host):
    """And its exponential is not. A batch of equal bases has independent estimates."""
    prior = density(host, lambda x: 15 * x**2, np.zeros(4000), 1.0)
    losses = host.loss(host.ebm.MaximumLikelihood(num_samples=20), prior, np.zeros(4000))
    exact = LOG_ROOT + gaussian_log_normalizer(30.0, 0.0, 1.0)
    assert losses.mean() < exact - 4 * losses.std() / math.sqrt(4000)
    ratios = np.exp(losses - exact)
    assert ratios.mean() == pytest.approx(1, abs=4 * ratios.std() / math.sqrt(4000))


def test_gradients_in_energy_and_base(host):
    def prior(p):
        base = host.dist.Normal(p["loc"], host.xp.exp(p["log_scale"]))
        return host.ebm.EnergyBased(lambda x: p["weight"] * x**4 / 4, base)

    params, x = {"weight": 0.8, "loc": 0.3, "log_scale": -0.2}, np.tile(X, (40, 1))
    objective = host.ebm.MaximumLikelihood(num_samples=4000)
    _, gradients = host.blocks(objective, prior, params, x)
    found = np.stack([gradients[name] for name in params], -1)
    assert_mean(found, quartic_likelihood_gradient(X, *params.values()), 0.01)


def test_each_element_of_a_batched_base_has_a_normalizer(host):
    loc, scale, x = np.array([0.0, 1.5]), np.array([0.7, 1.2]), X.reshape(3, 2)
    prior = density(host, lambda x: 0.75 * x**2, loc, scale).expand((3, 2))
    loss = host.loss(host.ebm.MaximumLikelihood(num_samples=200_000), prior, x)
    pairs = zip(loc, scale, strict=True)
    log_normalizers = [gaussian_log_normalizer(1.5, *pair) for pair in pairs]
    log_density = -0.5 * ((x - loc) / scale) ** 2 - np.log(scale) - LOG_ROOT
    exact = 0.75 * x**2 - log_density + log_normalizers
    np.testing.assert_allclose(loss, exact, atol=0.01, rtol=0)


def test_gaussian_is_recovered(host):
    def model(x):
        weight, loc = (host.ppl.param(name, host.array(0.2)) for name in ("weight", "loc"))
        with host.ppl.plate("data", len(x)):
            prior = host.ebm.EnergyBased(lambda x: 0.5 * weight * x**2, host.dist.Normal(loc, 1.0))
            host.ppl.sample("x", prior, obs=x)

    loss = host.ebm.EnergyELBO(host.ebm.MaximumLikelihood(), num_normalizer_samples=0)
    x = 0.4 + math.sqrt(0.5) * np.random.default_rng(1).normal(size=1024)
    found = host.fit(model, host.empty_guide, loss, host.array(x), num_steps=200)
    weight, loc = (found.mean(name, 100) for name in ("weight", "loc"))
    # A Gaussian of precision 1 + weight and mean loc / (1 + weight); over seeds they have
    # deviations of 0.7 % and 0.004.
    assert 1 + weight == pytest.approx(1 / x.var(), rel=0.03)
    assert loc / (1 + weight) == pytest.approx(x.mean(), abs=0.016)


def test_metrics(host):
    def prior(p):
        return density(host, lambda x: 1.5 * x**2, 0.0, 1.0)

    found = host.step(host.ebm.MaximumLikelihood(num_samples=100_000), prior, {}, X)
    # (E w)^2 / E w^2 of w = exp(-3 x^2 / 2) under N(0, 1).
    once, twice = (gaussian_log_normalizer(weight, 0.0, 1.0) for weight in (3.0, 6.0))
    expected = 1e5 * math.exp(2 * once - twice)
    assert found.metrics["effective_sample_size"] == pytest.approx(expected, rel=0.02)
    assert set(found.metrics) == {"energy_gap", "energy_scale", "effective_sample_size"}


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (lambda host: None, "a base to draw from, got base=None"),
        (lambda host: host.NoDensity(), "a base with sample and log_prob, got .*NoDensity"),
        (
            lambda host: host.dist.ImproperUniform(host.dist.constraints.real, (), ()),
            "a base with sample and log_prob, got .*Improper",
        ),
    ],
)
def test_bases_that_do_not_fit(host, base, message):
    prior = host.ebm.EnergyBased(lambda x: x**2, base(host), event_shape=())
    with pytest.raises(ValueError, match=message):
        host.loss(host.ebm.MaximumLikelihood(), prior, X)
