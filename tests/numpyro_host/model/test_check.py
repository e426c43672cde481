import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from flax import nnx
from helpers.hosts.numpyro import normal
from helpers.infer.check import *  # noqa: F403
from numpyro.contrib.module import nnx_module
from numpyro.infer.autoguide import AutoNormal

import pyro_ebm.numpyro as ebm

X = jnp.ones((6, 2))


def square(x):
    return (x**2).sum(-1)


def test_nnx_modules_are_registered():
    def model():
        energy = nnx_module("energy", nnx.Linear(2, 1, rngs=nnx.Rngs(0)))
        numpyro.sample("x", ebm.EnergyBased(lambda x: energy(x)[:, 0], normal()))

    assert ebm.check_model(model)() == []


def test_improper_sites_are_no_issue():
    def model():
        numpyro.sample("wide", dist.ImproperUniform(dist.constraints.real, (), ()))

    assert ebm.check_model(model)() == []


def test_arrays_of_a_partial_are_unregistered():
    energy = jax.tree_util.Partial(lambda weight, x: weight * square(x), jnp.ones(()))

    def model():
        numpyro.sample("x", ebm.EnergyBased(energy, normal()))

    assert is_only(ebm.check_model(model)(), "x", "unregistered", ": 0.0;")  # noqa: F405


def test_an_autoguide_is_not_set_up():
    def model():
        numpyro.sample("z", dist.Normal(0.0, 1.0))

    guide = AutoNormal(model)
    assert ebm.check_model(model, guide)() == []
    assert guide.prototype_trace is None


def test_a_few_rows_are_computed():
    computed = []

    def energy(x):
        computed.extend([] if isinstance(x, jax.core.Tracer) else [len(x)])
        return square(x)

    def model(x):
        numpyro.sample("x", ebm.EnergyBased(energy, normal()))

    assert ebm.check_model(model)(X) == []
    assert len(computed) == 2
    assert max(computed) <= 4
    # None where everything is traced, as in parallel chains of MCMC.
    jax.jit(lambda x: ebm.check_model(model)(x))(X)
    assert len(computed) == 2
