import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers.infer import stock_tools as shared
from helpers.infer.stock_tools import *  # noqa: F403
from helpers.infer.stock_tools import COVARIANCE, MATRIX, X, nuts
from jax import random
from numpyro import handlers
from numpyro.infer import Predictive
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
