"""NumPyro's own tools on a model with an energy-based prior."""

import warnings

import arviz as az
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from jax import random
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from numpyro.infer.autoguide import (
    AutoDelta,
    AutoLaplaceApproximation,
    AutoMultivariateNormal,
    AutoNormal,
)
from numpyro.infer.inspect import get_dependencies
from numpyro.infer.util import log_density
from numpyro.util import format_shapes

import pyro_ebm.numpyro as ebm
from pyro_ebm.diagnostics import to_arviz

# z ~ exp(-1.5 z^2) N(z; 0, 1), precision 4; x | z ~ N(z, 1): posterior N(x / 5, 1 / 5).
X = jnp.array([1.0, -2.0, 0.5])
MEAN, VARIANCE = X / 5, 1 / 5


def model(x=None):
    with numpyro.plate("data", 3):
        z = numpyro.sample("z", ebm.EnergyBased(lambda z: 1.5 * z**2, dist.Normal(0.0, 1.0)))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_predictive():
    for parallel in (False, True):
        draws = Predictive(model, num_samples=2000, parallel=parallel)(random.key(0))
        assert draws["z"].shape == draws["x"].shape == (2000, 3)
        assert float(draws["z"].var()) == pytest.approx(0.25, rel=0.15)
        assert float(draws["x"].var()) == pytest.approx(1.25, rel=0.1)


def test_nuts():
    mcmc = MCMC(NUTS(model), num_warmup=200, num_samples=1500, progress_bar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mcmc.run(random.key(0), X)
    draws = mcmc.get_samples()
    assert jnp.allclose(draws["z"].mean(0), MEAN, atol=0.06)
    assert jnp.allclose(draws["z"].var(0), VARIANCE, rtol=0.15)
    predicted = Predictive(model, draws)(random.key(1))["x"]
    assert jnp.allclose(predicted.var(0), VARIANCE + 1, rtol=0.2)
    assert to_arviz(mcmc).posterior["z"].shape == (1, 1500, 3)
    read = az.from_numpyro(mcmc)
    assert read.posterior["z"].shape == (1, 1500, 3)


def test_nuts_on_a_doubly_intractable_model():
    def intractable():
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        numpyro.sample("z", ebm.EnergyBased(lambda z: scale * z**2, dist.Normal(0.0, 1.0)))

    mcmc = MCMC(NUTS(intractable), num_warmup=2, num_samples=2, progress_bar=False)
    with pytest.warns(UserWarning, match="doubly intractable"):
        mcmc.run(random.key(0))


@pytest.mark.parametrize(
    ("guide_class", "loss"),
    [(AutoNormal, TraceMeanField_ELBO(8)), (AutoMultivariateNormal, Trace_ELBO(8))],
)
def test_gaussian_guides(guide_class, loss):
    guide = guide_class(model)
    result = SVI(model, guide, optax.adam(0.02), loss).run(
        random.key(0), 1500, X, progress_bar=False
    )
    draws = guide.sample_posterior(random.key(1), result.params, sample_shape=(4000,))["z"]
    assert jnp.allclose(draws.mean(0), MEAN, atol=0.08)
    assert jnp.allclose(draws.var(0), VARIANCE, rtol=0.25)


def test_delta_guide():
    guide = AutoDelta(model)
    result = SVI(model, guide, optax.adam(0.02), Trace_ELBO()).run(
        random.key(0), 500, X, progress_bar=False
    )
    assert jnp.allclose(guide.median(result.params)["z"], MEAN, atol=0.01)


def test_laplace_guide():
    guide = AutoLaplaceApproximation(model)
    result = SVI(model, guide, optax.adam(0.02), Trace_ELBO()).run(
        random.key(0), 500, X, progress_bar=False
    )
    posterior = guide.get_posterior(result.params)
    draws = guide.sample_posterior(random.key(1), result.params, sample_shape=(20000,))["z"]
    assert jnp.allclose(posterior.variance, VARIANCE, rtol=1e-3)
    assert jnp.allclose(jnp.cov(draws.T), VARIANCE * jnp.eye(3), atol=0.01)


def test_log_density_shapes_and_dependencies():
    z = jnp.array([0.1, 0.2, -0.3])
    density, _ = log_density(model, (X,), {}, {"z": z})
    base, noise = dist.Normal(0.0, 1.0), dist.Normal(z, 1.0)
    assert jnp.isclose(density, (-1.5 * z**2 + base.log_prob(z) + noise.log_prob(X)).sum())
    trace = handlers.trace(handlers.seed(model, 0)).get_trace(X)
    assert "z dist 3 |" in format_shapes(trace)
    assert get_dependencies(model, (X,))["prior_dependencies"]["x"].keys() == {"x", "z"}
    with pytest.raises(NotImplementedError):
        ebm.EnergyBased.infer_shapes((2,))


def test_predictive_of_a_guide():
    guide = AutoNormal(model)
    svi = SVI(model, guide, optax.adam(0.02), Trace_ELBO())
    params = svi.get_params(svi.init(random.key(0), X))
    draws = Predictive(model, guide=guide, params=params, num_samples=5)(random.key(0))
    assert draws["x"].shape == (5, 3)
    assert jax.tree.all(jax.tree.map(lambda leaf: bool(jnp.isfinite(leaf).all()), draws))
