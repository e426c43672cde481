import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import optax
import pytest
from helpers.compilations import counted_compilations
from helpers.hosts.numpyro import empty_guide, prior
from helpers.objectives.gradient_jumps import *  # noqa: F403
from jax import random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI

import pyro_ebm.numpyro as ebm

KEY = random.key(0)


def test_a_first_update_refuses_them():
    """``SVI.update`` takes gradients in the parameters, whose numbers are known all the same."""
    x, net = random.normal(random.key(1), (64, 2)), eqx.nn.MLP(2, "scalar", 64, 1, key=KEY)

    def model(x):
        energy = jax.vmap(eqx_module("energy", net))  # With ReLU, unless told otherwise.
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", prior(energy), obs=x)

    svi = SVI(model, empty_guide, optax.adam(1e-3), ebm.EnergyELBO(ebm.ScoreMatching()))
    state = svi.init(KEY, x)
    with pytest.raises(ValueError, match="site 'x' to have a continuous gradient"):
        svi.update(state, x)


def test_new_weights_compile_nothing_anew():
    def check(scale):
        energy = prior(lambda x: jnp.tanh(scale * x).sum(-1))
        ebm.ScoreMatching().check_energy(energy, jnp.ones((8, 2)), jnp.ones(8), "x")

    check(jnp.array(1.0))
    with counted_compilations() as found:
        check(jnp.array(2.0))
    assert not found
