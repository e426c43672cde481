import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers.infer import stock_tools as shared
from helpers.infer.stock_tools import *  # noqa: F403
from helpers.infer.stock_tools import COVARIANCE, MATRIX, X, nuts
from jax import random
from numpyro import handlers
from numpyro.infer import Predictive, Trace_ELBO, TraceMeanField_ELBO
from numpyro.infer.inspect import get_dependencies
from numpyro.infer.util import log_density
from numpyro.util import format_shapes

import pyro_ebm.numpyro as ebm


def test_predictive_of_posterior_draws(host):
    predictive = Predictive(shared.model(host), nuts(host).get_samples())
    predicted = predictive(random.key(1))["x"]
    np.testing.assert_allclose(np.cov(predicted.T), COVARIANCE + np.eye(2), atol=0.25)


def test_log_density_shapes_and_dependencies(host):
    model, z = shared.model(host), jnp.array([0.1, 0.2])
    density, _ = log_density(model, (X,), {}, {"z": z})
    expected = dist.Normal(0.0, 2.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(X)
    assert jnp.isclose(density, expected.sum() - z @ MATRIX @ z / 2)
    trace = handlers.trace(handlers.seed(model, 0)).get_trace(X)
    assert "z dist | 2" in format_shapes(trace)
    assert get_dependencies(model, (X,))["prior_dependencies"]["x"].keys() == {"x", "z"}
    with pytest.raises(NotImplementedError):
        ebm.EnergyBased.infer_shapes((2,))


@pytest.mark.parametrize("elbo", [Trace_ELBO(2), TraceMeanField_ELBO()])
def test_an_energy_without_parameters_in_a_guide_is_warned_of(host, elbo):
    def guide(x):
        numpyro.sample("z", host.prior(lambda z: (z**2).sum(-1)))

    with pytest.warns(UserWarning, match="stock ELBO whose guide has such a site"):
        jax.eval_shape(lambda key: elbo.loss(key, {}, shared.model(host), guide, X), random.key(0))
