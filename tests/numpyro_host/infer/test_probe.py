import equinox as eqx
import jax.numpy as jnp
import pytest
from helpers.hosts.numpyro import prior as normal_prior
from helpers.infer.probe import *  # noqa: F403
from jax import random


def test_an_energy_of_a_single_value():
    prior = normal_prior(eqx.nn.MLP(2, "scalar", 8, 1, key=random.key(0)))
    with pytest.raises(ValueError, match=r"got a function of a single value: write jax.vmap"):
        prior._check_rows(jnp.ones((3, 2)))
