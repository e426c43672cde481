import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers.objectives.jacobian import *  # noqa: F403
from helpers.objectives.jacobian import SMALLEST
from jax import random

import pyro_ebm.numpyro as ebm

KEY = random.key(0)
NORMALIZED = eqx.nn.Sequential([eqx.nn.Lambda(jnp.tanh), eqx.nn.LayerNorm(6)])


class Perceptron(eqx.Module):
    """From two dimensions to four, with the given layer in between."""

    first: jax.Array
    second: jax.Array
    layer: eqx.Module

    def __init__(self, layer):
        self.first, self.second = random.normal(KEY, (2, 6)), random.normal(KEY, (6, 4))
        self.layer = layer

    def __call__(self, z):
        return jax.vmap(self.layer)(z @ self.first) @ self.second


GENERATORS = {
    "tanh": lambda: Perceptron(eqx.nn.Lambda(jnp.tanh)),
    "prelu": lambda: Perceptron(eqx.nn.PReLU(0.1)),
    "layer norm": lambda: Perceptron(NORMALIZED),
}


@pytest.fixture(params=GENERATORS)
def generator(request, float64):
    return GENERATORS[request.param]()


@pytest.mark.parametrize(
    ("generator", "method"),
    [
        ("tanh", {}),
        ("prelu", {}),
        ("layer norm", {}),
        ("layer norm", SMALLEST),
        ("tanh", {**SMALLEST, "num_iterations": 2}),
    ],
    indirect=["generator"],
)
def test_gradients(generator, method):
    z = random.normal(KEY, (3, 2))
    arrays, static = eqx.partition(generator, eqx.is_inexact_array)

    @jax.jit
    @jax.value_and_grad
    def total(both):
        generator = eqx.combine(both[0], static)
        return ebm.log_det_jtj(KEY, generator, both[1], **method).sum()

    both, structure = jax.tree.flatten((arrays, z))
    gradients = jax.tree.leaves(total((arrays, z))[1])
    for which, gradient in enumerate(gradients):
        direction = random.normal(random.key(which), gradient.shape)
        values = []
        for step in (1e-5, -1e-5):
            moved = [*both[:which], both[which] + step * direction, *both[which + 1 :]]
            values.append(total(structure.unflatten(moved))[0])
        expected = ((values[0] - values[1]) / 2e-5).item()
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    "method",
    [{}, SMALLEST, {**SMALLEST, "num_iterations": 3}, {"method": "stochastic", "num_probes": 2}],
    ids=["exact", "svd", "lobpcg", "stochastic"],
)
def test_compiles_once(method):
    num_traces = 0

    @jax.jit
    @jax.grad
    def gradient(weight, key, z):
        nonlocal num_traces
        num_traces += 1
        return ebm.log_det_jtj(key, lambda z: jnp.sinh(z @ weight), z, **method).sum()

    weight = random.normal(KEY, (2, 3))
    for scale in (1.0, 2.0):
        z = scale * random.normal(KEY, (3, 2))
        found = gradient(scale * weight, random.key(int(scale)), z)
        assert jnp.isfinite(found).all()
        assert (found != 0).all()
    assert num_traces == 1


@pytest.mark.parametrize("method", [{"method": "stochastic"}, {**SMALLEST, "num_iterations": 2}])
def test_random_methods_need_a_key(method):
    with pytest.raises(ValueError, match="Expected `rng_key` for a method that draws"):
        ebm.log_det_jtj(None, jnp.sinh, jnp.ones((2, 2)), **method)
