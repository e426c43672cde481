import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers.infer.posterior import *  # noqa: F403
from helpers.infer.posterior import energy_prior
from jax import random
from numpyro import handlers
from numpyro.contrib.control_flow import scan

import pyro_ebm.numpyro as ebm
from pyro_ebm.numpyro.model.posterior import Posterior


def test_parameters_come_from_outer_handlers():
    def model(x):
        weight = numpyro.param("weight", 1.0)
        with numpyro.plate("data", len(x)):
            prior = ebm.EnergyBased(lambda z: weight * z**2, dist.Normal(0.0, 1.0))
            z = numpyro.sample("z", prior)
            numpyro.sample("x", dist.Normal(weight * z, 1.0), obs=x)

    @jax.jit
    def potential(position, **params):
        with handlers.substitute(data=params):
            return Posterior(random.key(0), model, (jnp.zeros(3),)).potential(position)

    position = random.normal(random.key(0), (3, 1))
    difference = potential(position, weight=2.0) - potential(position)
    np.testing.assert_allclose(difference, 2.5 * position[:, 0] ** 2)


def test_starts_in_a_scan_are_draws_from_the_base(host):
    def model():
        step = lambda carry, _: (carry, numpyro.sample("z", energy_prior(host)))  # noqa: E731
        scan(step, 0.0, jnp.arange(2))

    @jax.jit
    def starts():
        return host.starts(host.posterior(model), 4000)

    assert starts().std() == pytest.approx(2.0, rel=0.05)
