"""Observed sites without a plate: NumPyro broadcasts their log-densities."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers.hosts.numpyro import Bowl, empty_guide, fit, normal, observed_model, prior, register
from jax import random

import pyro_ebm.numpyro as ebm

Y = np.random.default_rng(0).normal(1.0, 1.0, 20)
X = random.normal(random.key(1), (50, 2))


def models():
    """Models of a mean and 20 values: without and in a plate."""

    def of(site):
        def model(y):
            site(numpyro.sample("b", dist.Normal(0.0, 1.0)), y)

        return model

    def plated(b, y):
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(b, 1.0), obs=y)

    plain = lambda b, y: numpyro.sample("y", dist.Normal(b, 1.0), obs=y)  # noqa: E731
    return {"plain": of(plain), "plate": of(plated)}


def guide(y):
    numpyro.sample("b", dist.Normal(y.sum() / 21, 21**-0.5))


@pytest.mark.parametrize("method", ["importance", "annealed"])
def test_log_marginal_is_one_number(method):
    exact = dist.MultivariateNormal(jnp.zeros(20), jnp.ones((20, 20)) + jnp.eye(20)).log_prob(Y)
    options = {"method": method, "num_samples": 200, "num_temperatures": 20}
    options["sampler"] = ebm.MALA(0.1, target_accept_prob=None)
    results = {
        name: ebm.log_marginal(model, guide, **options)(random.key(0), jnp.asarray(Y))
        for name, model in models().items()
    }
    for result in results.values():
        assert result.estimate.shape == ()
        np.testing.assert_allclose(result.estimate, results["plate"].estimate, rtol=1e-5)
    tolerance = 1e-3 + 4 * results["plain"].standard_error
    assert abs(results["plain"].estimate - exact) < tolerance < 0.5


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
