"""Observed sites without a plate: NumPyro broadcasts their log-densities."""

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers.hosts.numpyro import Bowl, empty_guide, fit, normal, observed_model, prior, register
from jax import random

import pyro_ebm.numpyro as ebm

X = random.normal(random.key(1), (50, 2))


def flat(x):
    return 0 * x[:, 0] + 3.0


def observed(x):
    numpyro.sample("x", ebm.EnergyBased(flat, normal()), obs=x)


def observed_in_a_plate(x):
    with numpyro.plate("data", len(x)):
        observed(x)


def test_the_reported_loss_counts_every_log_normalizer():
    loss = ebm.EnergyELBO({})
    exact = -float(normal().log_prob(X).sum())
    for model in (observed, observed_in_a_plate):
        assert fit(model, empty_guide, loss, X).losses[0] == pytest.approx(exact, rel=1e-5)
    assert ebm.check_model(observed)(X) == []


def test_latents_count_every_log_normalizer():
    """Of z ~ N(0, 1 / 1.7) six times, y ~ N(z, 1), with the exact posterior as the guide."""
    y, variance = random.normal(random.key(4), (6,)), 1 / 1.7

    def model():
        prior = ebm.EnergyBased(lambda z: 0.35 * z**2, dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(numpyro.sample("z", prior, sample_shape=(6,)), 1.0), obs=y)

    def guide():
        gain = variance / (1 + variance)
        numpyro.sample("z", dist.Normal(gain * y, gain**0.5))

    exact = float(dist.Normal(0.0, (1 + variance) ** 0.5).log_prob(y).sum())
    loss = ebm.EnergyELBO({}, num_normalizer_samples=20_000)
    assert -loss.loss(random.key(0), {}, model, guide) == pytest.approx(exact, abs=0.05)
    for options in ({"guide": guide}, {"method": "annealed"}):
        found = ebm.log_marginal(model, **options)(random.key(0)).estimate
        assert found == pytest.approx(exact, abs=0.1)


def test_objectives_train_the_same():
    def unplated(x):
        numpyro.sample("x", prior(register("energy", Bowl())), obs=x)

    loss = ebm.EnergyELBO(ebm.MaximumLikelihood(num_samples=20))
    found = [
        fit(model, empty_guide, loss, X, num_steps=2)
        for model in (unplated, observed_model(Bowl()))
    ]
    np.testing.assert_allclose(found[0].losses, found[1].losses, rtol=1e-5)
    weights = [path.params["energy.weight"] for path in found]
    np.testing.assert_allclose(*weights, rtol=1e-5)
