import math

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers import linear_gaussian as truth
from helpers.compilations import counted_compilations
from helpers.linear_gaussian_numpyro import Toy
from jax import random
from numpyro import handlers
from scipy.stats import multivariate_normal

import pyro_ebm.numpyro as ebm

KNOWN = {"log_normalizers": {"z": 0.5 * math.log(1 / 16 / truth.PRECISION)}}
KEY = random.key(0)
SETTINGS = {
    "importance": {"num_samples": 500},
    "annealed": {
        "method": "annealed",
        "num_samples": 100,
        "num_temperatures": 20,
        "batch_size": 50,
    },
}
# Compiles faster without a first pass that tunes it.
UNTUNED = {**SETTINGS["annealed"], "sampler": ebm.MALA(0.5, target_accept_prob=None)}
# The toy at its best prior, and a guide that is not quite the posterior.
PARAMS = {"a": jnp.log(truth.PRECISION - 1 / 16), "slope": 0.7, "scale": 1.1}


def fitted(function, **params):
    return handlers.substitute(function, data=PARAMS | params)


def exact_log_marginal(x):
    return dist.Normal(0.0, math.sqrt(1 / truth.PRECISION + 1)).log_prob(x)


def check(result, exact):
    """Errors are as large as stated, over many data points."""
    errors = np.asarray((result.estimate - exact) / result.standard_error)
    assert result.estimate.shape == result.standard_error.shape == exact.shape
    assert errors.mean() == pytest.approx(0.0, abs=4 / math.sqrt(len(errors)))
    assert (errors**2).mean() == pytest.approx(1.0, abs=4 * math.sqrt(2 / len(errors)))


# --- exact marginal likelihoods ---


@pytest.mark.parametrize("method", SETTINGS)
def test_each_data_point_is_right_within_its_error(method):
    toy = Toy("plate")
    model, guide = fitted(toy.model), fitted(toy.guide)
    result = ebm.log_marginal(model, guide, **KNOWN, **SETTINGS[method])(KEY)
    check(result, exact_log_marginal(toy.x))
    assert result.standard_error.mean() < 0.1
    assert (result.log_normalizer_error == 0).all()


# --- one number for all data ---


def grouped_model(x):
    loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(loc, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_a_latent_outside_of_the_plate():
    x = random.normal(KEY, (3,))
    exact = multivariate_normal(np.zeros(3), np.ones((3, 3)) + 2 * np.eye(3)).logpdf(x)
    result = ebm.log_marginal(grouped_model, **UNTUNED)(KEY, x)
    assert result.estimate.shape == ()
    assert abs(result.estimate - exact) < 4 * result.standard_error < 1.0


def test_a_guide_that_ties_data_points():
    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        normal = dist.Normal(x / 2, 0.8).to_event(1)
        z = numpyro.sample("joint", normal, infer={"is_auxiliary": True})
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Delta(z))

    log_marginal = ebm.log_marginal(model, guide, num_samples=4000)
    for seed in (1, 2):
        x = random.normal(random.key(seed), (3,))
        exact = dist.Normal(0.0, math.sqrt(2.0)).log_prob(x).sum()
        with counted_compilations() as compiled:
            result = log_marginal(KEY, x)
        assert result.estimate.shape == ()
        assert abs(result.estimate - exact) < 4 * result.standard_error < 1.0
    # New data compile nothing again.
    assert not compiled


# --- log-normalizers ---


def steep(z):
    return 1.5 * z**2


def features_model(x):
    """A datum has three latents of one energy-based prior; the first two of them count.

    Another latent, of no consequence, makes them one datum.
    """
    mask = np.array([True, True, False])
    with numpyro.plate("data", len(x), dim=-2):
        numpyro.sample("idle", dist.Normal(0.0, 1.0))
        with numpyro.plate("features", 3, dim=-1), handlers.mask(mask=mask):
            z = numpyro.sample("z", ebm.EnergyBased(steep, dist.Normal(0.0, 1.0)))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_errors_of_log_normalizers_add_up():
    x = random.normal(KEY, (5, 3))
    prior = ebm.EnergyBased(steep, dist.Normal(0.0, 1.0))
    rough = ebm.log_normalizer(KEY, prior, method="importance", num_samples=50)
    exact, with_error, estimated = (
        ebm.log_marginal(features_model, log_normalizers=known, **UNTUNED)(KEY, x)
        for known in ({"z": -math.log(2)}, {"z": rough}, None)
    )
    log_marginal = dist.Normal(0.0, math.sqrt(1.25)).log_prob(x)[:, :2].sum(-1)
    for result in (exact, estimated):
        assert (jnp.abs(result.estimate - log_marginal) < 4 * result.standard_error).all()
    assert (estimated.log_normalizer_error > 0).all()
    shift = 2 * (rough.estimate + math.log(2))
    np.testing.assert_allclose(with_error.estimate, exact.estimate - shift, rtol=1e-5)
    common = np.full(5, 2 * rough.standard_error)
    np.testing.assert_allclose(with_error.log_normalizer_error, common, rtol=1e-5)
    expected = np.sqrt(exact.standard_error**2 + common**2)
    np.testing.assert_allclose(with_error.standard_error, expected, rtol=1e-5)


# --- warnings and errors ---


def test_few_effective_samples_trigger_a_warning():
    toy = Toy("plate")
    model, guide = fitted(toy.model), fitted(toy.guide, scale=0.02)
    with pytest.warns(UserWarning, match="is below 10 at .* of 512 data points"):
        ebm.log_marginal(model, guide, **KNOWN, num_samples=50)(KEY)


def test_options_of_the_model_are_its_own():
    def model(x, method):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z, method), obs=x)

    result = ebm.log_marginal(model, **UNTUNED)(KEY, 0.5, method=1.0)
    exact = dist.Normal(0.0, math.sqrt(2)).log_prob(0.5)
    assert abs(result.estimate - exact) < 4 * result.standard_error < 1.0


def test_errors():
    x = jnp.ones(3)
    with pytest.raises(ValueError, match="a guide for method='importance', got None"):
        ebm.log_marginal(grouped_model)
    with pytest.raises(ValueError, match="a guide with a density, got one with nothing but Delta"):
        ebm.log_marginal(grouped_model, ebm.LangevinGuide(grouped_model))(KEY, x)
    with pytest.raises(ValueError, match=r"energy-based sites of the model \(\[\]\), got 'z'"):
        ebm.log_marginal(grouped_model, method="annealed", log_normalizers={"z": 0.0})(KEY, x)
    sampler = ebm.KineticLangevin(0.1)
    with pytest.raises(ValueError, match="accepts or rejects its moves.*, got KineticLangevin"):
        ebm.log_marginal(grouped_model, method="annealed", sampler=sampler)
