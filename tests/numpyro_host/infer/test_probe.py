import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import optax
import pytest
from flax import linen
from helpers.hosts.numpyro import empty_guide
from helpers.hosts.numpyro import prior as normal_prior
from helpers.infer import probe
from helpers.infer.probe import *  # noqa: F403
from jax import random
from numpyro.contrib.module import flax_module
from numpyro.infer import SVI

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


BATCH_NORM = linen.Sequential([linen.BatchNorm(use_running_average=False), linen.Dense(1)])


@pytest.mark.parametrize(
    "name", ["mean over rows", "number of rows", "batch norm", "chance", "all rows"]
)
def test_compiled_training_refuses(name):
    """Under ``jit`` neither parameters nor values are known."""

    def model(x):
        scale, key = numpyro.param("scale", jnp.ones(2)), numpyro.prng_key()
        net = flax_module("net", BATCH_NORM, input_shape=(1, 2), mutable=["batch_stats"])
        energy = {
            "mean over rows": lambda x: probe.centered(scale * x),
            "number of rows": lambda x: probe.shared(scale * x),
            "batch norm": lambda x: net(x)[:, 0],
            "chance": lambda x: random.normal(key, x.shape[:1]),
            "all rows": lambda some: (scale * x * some).sum(-1),
        }[name]
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", normal_prior(energy), obs=x)

    loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=1.0))
    svi = SVI(model, empty_guide, optax.adam(1e-3), loss)
    expected = (
        "take any number of rows" if name == "all rows" else "give a row the same number again"
    )
    with pytest.raises(ValueError, match=f"site 'x' to {expected}"):
        svi.run(random.key(0), 1, jnp.array(probe.X), progress_bar=False)


def test_sound_energies_pass_in_compiled_training():
    def model(x):
        scale, key = numpyro.param("scale", 1.0), numpyro.prng_key()

        def energy(x):  # NaN at most numbers that stand in for others.
            return jnp.sqrt(scale - 7) * jnp.log(x - 9).sum(-1) + 0 * random.normal(key)

        with numpyro.plate("data", len(x)):
            numpyro.sample("x", normal_prior(energy), obs=x)

    loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=1.0))
    svi = SVI(model, empty_guide, optax.adam(1e-3), loss)
    state = svi.init(random.key(0), jnp.array(probe.X))
    jax.eval_shape(svi.update, state, jnp.array(probe.X))
