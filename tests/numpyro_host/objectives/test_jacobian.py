import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.jacobians import (
    CURVED_DEFICIT,
    CURVED_ENTROPY,
    ENTROPIES,
    SPREAD_ESTIMATES,
    SPREAD_TRUTH,
    curved,
    normal_entropy,
    normal_grid,
    spread,
)
from jax import random

import pyro_ebm.numpyro as ebm
from pyro_ebm.numpyro.objectives import jacobian as room

SMALLEST = {"method": "smallest_singular_value"}
KEY = random.key(0)

# Compiled as a whole: an operation at a time takes longer.
log_det_jtj = eqx.filter_jit(ebm.log_det_jtj)
smallest_singular_value = eqx.filter_jit(room.smallest_singular_value)
jacobian = eqx.filter_jit(room.jacobian)


def linear(matrix, dtype=None):
    matrix = jnp.asarray(matrix, dtype)
    return lambda z: z @ matrix.T


# --- figures of the method page ---


@pytest.mark.parametrize(("matrix", "entropy", "with_the_smallest"), ENTROPIES)
def test_entropy_of_a_linear_generator(float64, matrix, entropy, with_the_smallest):
    num_dims = len(matrix)
    base, z = normal_entropy(num_dims), random.normal(KEY, (3, num_dims))
    options = [(entropy, {}), (with_the_smallest, SMALLEST)]
    options.append((with_the_smallest, {**SMALLEST, "num_iterations": 30}))
    for expected, method in options:
        found = base + log_det_jtj(KEY, linear(matrix), z, **method) / 2
        assert found.tolist() == pytest.approx([expected] * 3, abs=1e-6)


def test_entropy_of_a_curved_surface(float64):
    grid, masses = (jnp.asarray(array) for array in normal_grid())

    def generator(z):
        return curved(jnp, z)

    exact = masses @ log_det_jtj(None, generator, grid) / 2
    bound = masses @ log_det_jtj(None, generator, grid, **SMALLEST) / 2
    assert normal_entropy(2) + exact.item() == pytest.approx(CURVED_ENTROPY, abs=1e-6)
    assert (exact - bound).item() == pytest.approx(CURVED_DEFICIT, abs=1e-4)
    # In the plane, one step finds the smallest singular value.
    found = smallest_singular_value(KEY, generator, grid, num_iterations=1)
    np.testing.assert_allclose(found, smallest_singular_value(None, generator, grid), rtol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_few_steps_are_no_bound(float64, dtype):
    generator, z = linear(spread(784, 128, 100), dtype), jnp.zeros((20, 128), dtype)

    for num_iterations in (0, 2, 5) if dtype == "float64" else (2,):
        found = log_det_jtj(KEY, generator, z, num_iterations=num_iterations, **SMALLEST) / 2
        assert found.dtype == dtype
        assert found.mean().item() == pytest.approx(SPREAD_ESTIMATES[num_iterations], rel=0.1)
    exact = log_det_jtj(None, generator, z[:1]).item() / 2
    assert exact == pytest.approx(SPREAD_TRUTH, abs=0.05)


# --- values and gradients, for what generators are made of ---


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


def test_jacobian(generator):
    z = random.normal(KEY, (3, 2))
    step = 1e-5 * jnp.eye(2)[:, None]
    columns = [(generator(z + s) - generator(z - s)) / 2e-5 for s in step]
    found = jacobian(generator, z)
    np.testing.assert_allclose(found, jnp.stack(columns, -1), atol=1e-7)
    expected = jnp.linalg.slogdet(found.mT @ found)[1]
    np.testing.assert_allclose(log_det_jtj(None, generator, z), expected, rtol=1e-8)
    values = smallest_singular_value(None, generator, z)
    np.testing.assert_allclose(values, jnp.linalg.svdvals(found)[:, -1], rtol=1e-8)


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


# --- stochastic ---


def test_the_mean_over_probes_is_exact_and_so_is_its_gradient(float64):
    net = Perceptron(NORMALIZED)
    z = jnp.broadcast_to(random.normal(KEY, (1, 2)), (4000, 2))

    def values_and_gradients(**method):
        def total(z):
            values = ebm.log_det_jtj(KEY, net, z, **method)
            return values.sum(), values

        gradients, values = jax.jit(jax.grad(total, has_aux=True))(z)
        return values[:, None], gradients

    drawn = values_and_gradients(method="stochastic", num_iterations=2)
    for found, expected in zip(drawn, values_and_gradients(), strict=True):
        errors = found - expected
        assert (jnp.abs(errors.mean(0)) < 4 * errors.std(0) / 4000**0.5).all()
        assert (errors.std(0) > 1e-3).all()


def test_several_probes_are_averaged(float64):
    generator, z = linear(spread(12, 6, 10)), jnp.zeros((1000, 6))
    one, many = (
        log_det_jtj(KEY, generator, z, method="stochastic", num_probes=num_probes)
        for num_probes in (1, 4)
    )
    assert many.shape == (1000,)
    assert many.var().item() == pytest.approx(one.var().item() / 4, rel=0.2)


def test_few_iterations_lie_above_on_average(float64):
    generator, z = linear(spread(24, 24, 100)), jnp.zeros((400, 24))
    exact = log_det_jtj(None, generator, z[:1]).item()
    scores = {}
    for num_iterations in (4, 24):
        options = {"method": "stochastic", "num_iterations": num_iterations}
        drawn = log_det_jtj(KEY, generator, z, **options)
        scores[num_iterations] = (drawn.mean().item() - exact) / (drawn.std().item() / 20)
    assert scores[4] > 4 > abs(scores[24])


# --- where rank is lost ---


@pytest.mark.parametrize("num_data", [2, 3])
def test_lost_rank(float64, num_data):
    weight = random.normal(KEY, (num_data,))
    z = jnp.array([[0.3, 0.0], [0.3, 0.5]])

    def log_dets(weight, z, **method):
        def generator(z):
            first, second = z[:, :1], z[:, 1:]
            return jnp.concat((first + second, (second**2) * weight[1:]), axis=-1)

        return ebm.log_det_jtj(KEY, generator, z, **method)

    exact = log_dets(weight, z)
    assert exact[0].item() == -np.inf
    assert jnp.isfinite(exact[1])
    stochastic = {"method": "stochastic", "num_probes": 20}
    for method in (SMALLEST, {**SMALLEST, "num_iterations": 2}, stochastic):
        found = eqx.filter_jit(log_dets)(weight, z, **method)
        assert jnp.isfinite(found).all()
        assert found[0] < -10
    # The other rows train on.
    total = jax.grad(lambda *args: log_dets(*args).sum(), argnums=(0, 1))
    gradients = jax.jit(total)(weight, z)
    assert all(jnp.isfinite(gradient).all() for gradient in gradients)
    assert jnp.abs(gradients[0]).sum() > 0


# --- what is refused ---


@pytest.mark.parametrize(
    ("shape", "generator", "message"),
    [
        ((4, 3), lambda z: z[:, :2], "at most as many latent as data dimensions, got 3 and 2"),
        ((4, 3), lambda z: z.sum(-1), r"the generator to map \(.*, 3\) to .*, got shape"),
        ((4, 3), lambda z: z[None], r"the generator to map \(.*, 3\) to .*, got shape"),
        ((3,), lambda z: z, r"latent values of shape \(N, d\), got shape \(3,\)"),
    ],
)
@pytest.mark.parametrize("method", ["exact", SMALLEST["method"], "stochastic"])
def test_wrong_shapes(shape, generator, message, method):
    with pytest.raises(ValueError, match=message):
        log_det_jtj(KEY, generator, jnp.ones(shape), method=method)


def test_wrong_method():
    with pytest.raises(ValueError, match="`method` to be one of"):
        log_det_jtj(KEY, jnp.sinh, jnp.ones((2, 2)), method="qr")


@pytest.mark.parametrize("method", [{"method": "stochastic"}, {**SMALLEST, "num_iterations": 2}])
def test_random_methods_need_a_key(method):
    with pytest.raises(ValueError, match="Expected `rng_key` for a method that draws"):
        log_det_jtj(None, jnp.sinh, jnp.ones((2, 2)), **method)
