import equinox as eqx
import jax.numpy as jnp
import pytest
from helpers.hosts.numpyro import prior as normal_prior
from helpers.infer.probe import *  # noqa: F403
from jax import random

import pyro_ebm.numpyro as ebm


@pytest.mark.parametrize(
    "use",
    [
        lambda prior: prior._check_rows(jnp.ones((3, 2))),
        lambda prior: prior.log_prob(jnp.ones((3, 2))),
        lambda prior: prior.sample(random.key(0), (3,)),
        lambda prior: ebm.log_normalizer(random.key(0), prior),
    ],
)
def test_an_energy_of_a_single_value(use):
    prior = normal_prior(eqx.nn.MLP(2, "scalar", 8, 1, key=random.key(0)))
    with pytest.raises(ValueError, match=r"got a function of a single value: write jax.vmap"):
        use(prior)
