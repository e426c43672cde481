import gc
import pickle
import weakref
from functools import partial

import equinox as eqx
import flax.linen
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from flax import nnx
from jax import random
from numpyro import handlers
from numpyro.contrib.module import eqx_module, flax_module, nnx_module

import pyro_ebm.numpyro as ebm
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.numpyro.distributions.bound_energy import frozen_in_parameters


def product(w, v):
    return jnp.sum(jnp.sin(w * v) * v**3)


W = jnp.arange(1.0, 4.0)
V = jnp.array([0.3, -0.7, 1.1])


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_derivatives(transform):
    def frozen(v, w):
        return frozen_in_parameters(lambda v: product(w, v), v)[0]

    def plain(v, w):
        return product(w, v)

    assert frozen(V, W) == plain(V, W)
    third = [lambda f: jax.jacfwd(jax.hessian(f))] if transform is jax.jit else []
    for derivative in [jax.grad, jax.hessian, *third]:
        found = transform(derivative(frozen))(V, W)
        assert jnp.allclose(found, jax.jit(derivative(plain))(V, W), rtol=1e-5, atol=1e-5)
    assert (transform(jax.grad(frozen, argnums=1))(V, W) == 0).all()
    assert jnp.abs(jax.grad(plain, argnums=1)(V, W)).min() > 0.001


def test_closure_over_changing_state():
    state = {"w": 1.0}

    def energy(v):
        return state["w"] * jnp.sum(v)

    before = frozen_in_parameters(energy, V)[0]
    state["w"] = 2.0
    assert frozen_in_parameters(energy, V)[0] == 2 * before


def test_no_reference_to_parameters_is_kept():
    module = eqx.nn.Linear(3, "scalar", key=random.key(0))
    reference = weakref.ref(module.weight)
    frozen_in_parameters(module, V)
    del module
    gc.collect()
    assert reference() is None


def test_vmapped_and_scanned_parameters():
    def frozen(w):
        return frozen_in_parameters(lambda v: product(w, v), V)[0]

    ws = jnp.stack([W, 2 * W])
    expected = jnp.stack([product(W, V), product(2 * W, V)])
    assert jnp.allclose(jax.vmap(frozen)(ws), expected)
    assert jnp.allclose(jax.lax.map(frozen, ws), expected)


def linear_energy(w, x):
    return x @ w


def energies_of(kind):
    """An energy of each kind, made under a fresh run of a model."""
    if kind == "equinox":
        mlp = eqx.nn.MLP(2, "scalar", 8, 1, activation=jax.nn.softplus, key=random.key(0))
        return lambda: jax.vmap(eqx_module("net", mlp))
    if kind == "nnx":
        net = nnx.Sequential(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), lambda x: x[:, 0])
        return lambda: nnx_module("net", net)
    if kind == "linen":
        return lambda: (lambda net: lambda x: net(x)[:, 0])(
            flax_module("net", flax.linen.Dense(1), input_shape=(1, 2))
        )
    if kind == "partial":
        return lambda: partial(linear_energy, jnp.ones(2))
    return lambda: lambda x: x.sum(-1)


@pytest.mark.parametrize("kind", ["equinox", "nnx", "linen", "partial", "closure"])
def test_energies_of_every_kind(kind):
    def model():
        return ebm.EnergyBased(energies_of(kind)(), dist.Normal(jnp.zeros(2), 1.0).to_event(1))

    with handlers.seed(rng_seed=0):
        distribution = model()
    x = jnp.ones((3, 2))
    eager = distribution.log_prob(x)
    assert eager.shape == (3,)
    assert jnp.allclose(jax.jit(lambda d: d.log_prob(x))(distribution), eager)
    assert distribution.sample(random.key(0), (4,)).shape == (4, 2)


class Power(eqx.Module):
    scale: jax.Array
    power: int = eqx.field(static=True)

    def __call__(self, x):
        return self.scale * jnp.abs(x) ** self.power


def top_level(scale, x):
    return scale * x**2


@pytest.mark.parametrize(
    "energy",
    [lambda s: Power(s, 4), lambda s: jax.tree_util.Partial(top_level, s)],
    ids=["module", "Partial"],
)
def test_new_parameters_compile_nothing_anew(energy):
    traces = []

    @jax.jit
    def log_prob(distribution, x):
        traces.append(None)
        return distribution.log_prob(x)

    results = []
    for scale in (1.0, 2.0, 3.0):
        distribution = ebm.EnergyBased(energy(jnp.array(scale)), dist.Normal(0.0, 1.0))
        results.append(log_prob(distribution, 1.0) - dist.Normal(0.0, 1.0).log_prob(1.0))
    assert len(traces) == 1
    assert jnp.allclose(jnp.array(results), jnp.array([-1.0, -2.0, -3.0]))


def test_distribution_as_scan_carry(prior):
    def step(distribution, x):
        doubled = jax.tree.map(lambda leaf: 2 * leaf, distribution.energy)
        energies = scaled_energy(distribution, x)
        return eqx.tree_at(lambda d: d.energy, distribution, doubled), energies

    _, energies = jax.lax.scan(step, prior, jnp.ones((3, 2)))
    assert jnp.allclose(energies, jnp.array([0.5, 1.0, 2.0]))


def test_pickle():
    restored = pickle.loads(
        pickle.dumps(
            ebm.EnergyBased(jax.tree_util.Partial(top_level, jnp.array(2.0)), dist.Normal(0.0, 1.0))
        )
    )
    assert jnp.isclose(scaled_energy(restored, jnp.array([3.0]))[0], 18.0)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(ebm.EnergyBased(lambda x: x, event_shape=()))
