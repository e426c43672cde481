import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from helpers.targets import normal_p_value
from jax import random

import pyro_ebm.numpyro as ebm
from pyro_ebm.numpyro.samplers.target import Target, initial_values

KEY = random.key(0)
GAMMA = dist.Gamma(3.0, 2.0)


@pytest.mark.parametrize("distribution", [GAMMA, ebm.EnergyBased(lambda x: 0.0 * x, GAMMA)])
def test_change_of_variables(distribution):
    target, position = Target.of(distribution), jnp.linspace(-1.0, 1.0, 5)
    expected = -GAMMA.log_prob(jnp.exp(position)) - position
    assert jnp.allclose(target.potential(position), expected, rtol=1e-5)
    assert jnp.allclose(target.position(target.value(position)), position, atol=1e-6)
    assert not target.is_unconstrained


def test_all_of_space():
    target = Target.of(dist.Normal(jnp.zeros(3), 1.0).to_event(1))
    assert target.is_unconstrained
    assert (target.log_volume(jnp.ones((5, 3))) == 0).all()


def test_initial_values_are_draws_of_the_base():
    distribution = ebm.EnergyBased(lambda x: x, dist.Normal(2.0, 3.0)).expand((4,))
    values = initial_values(KEY, distribution, (500,))
    assert values.shape == (500, 4)
    assert normal_p_value((values - 2.0) / 3.0) > 1e-3


@pytest.mark.parametrize(
    "distribution",
    [
        dist.Gamma(jnp.full(4, 9.0), 1.0),
        ebm.EnergyBased(lambda x: x, event_shape=(), support=dist.constraints.positive).expand(
            (4,)
        ),
    ],
)
def test_initial_values_without_a_base(distribution):
    values = initial_values(KEY, distribution, (500,))
    assert values.shape == (500, 4)
    assert normal_p_value(jnp.log(values)) > 1e-3
