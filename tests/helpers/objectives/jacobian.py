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
from helpers.objectives.step import assert_mean

pytestmark = pytest.mark.usefixtures("float64")

SMALLEST = {"method": "smallest_singular_value"}

rng = np.random.default_rng(0)


def linear(host, matrix):
    matrix = host.array(matrix)
    return lambda z: z @ matrix.T


# --- numbers of the methods page ---


@pytest.mark.parametrize(("matrix", "entropy", "with_the_smallest"), ENTROPIES)
def test_entropy_of_a_linear_generator(host, matrix, entropy, with_the_smallest):
    num_dims = len(matrix)
    base, z = normal_entropy(num_dims), rng.normal(size=(3, num_dims))
    options = [(entropy, {}), (with_the_smallest, SMALLEST)]
    options.append((with_the_smallest, {**SMALLEST, "num_iterations": 30}))
    for expected, method in options:
        found = base + host.log_det_jtj(linear(host, matrix), z, **method) / 2
        np.testing.assert_allclose(found, np.full(3, expected), atol=1e-6)


@pytest.mark.once
def test_entropy_of_a_curved_surface(host):
    grid, masses = normal_grid()

    def generator(z):
        return curved(host.xp, z)

    exact = masses @ host.log_det_jtj(generator, grid) / 2
    bound = masses @ host.log_det_jtj(generator, grid, **SMALLEST) / 2
    assert normal_entropy(2) + exact == pytest.approx(CURVED_ENTROPY, abs=1e-6)
    assert exact - bound == pytest.approx(CURVED_DEFICIT, abs=1e-4)
    # In the plane, one step finds the smallest singular value.
    found = host.smallest_singular_value(generator, grid, num_iterations=1)
    np.testing.assert_allclose(found, host.smallest_singular_value(generator, grid), rtol=1e-8)


def test_few_steps_are_no_bound(host):
    generator, z = linear(host, spread(784, 128, 100)), np.zeros((20, 128))
    for num_iterations in (0, 2, 5):
        found = host.log_det_jtj(generator, z, num_iterations=num_iterations, **SMALLEST) / 2
        assert found.mean() == pytest.approx(SPREAD_ESTIMATES[num_iterations], rel=0.1)
    exact = host.log_det_jtj(generator, z[:1]) / 2
    assert exact == pytest.approx(SPREAD_TRUTH, abs=0.05)


# --- stochastic ---


def test_mean_over_probes_is_exact_and_so_is_its_gradient(host):
    first, second = host.array(rng.normal(size=(2, 6))), host.array(rng.normal(size=(6, 4)))

    def generator(z):
        return host.xp.tanh(host.xp.tanh(z @ first)) @ second

    z = np.tile(rng.normal(size=(1, 2)), (4000, 1))
    options = {"method": "stochastic", "num_iterations": 2}
    drawn, exact = (host.log_det_and_gradient(generator, z, **m) for m in (options, {}))
    for found, expected in zip(drawn, exact, strict=True):
        errors = (found - expected).reshape(4000, -1)
        assert np.all(errors.std(0) > 1e-3)
        assert_mean(errors, 0.0, np.inf)


def test_several_probes_are_averaged(host):
    generator, z = linear(host, spread(12, 6, 10)), np.zeros((1000, 6))
    one, many = (
        host.log_det_jtj(generator, z, method="stochastic", num_probes=num_probes)
        for num_probes in (1, 4)
    )
    assert many.shape == (1000,)
    assert many.var() == pytest.approx(one.var() / 4, rel=0.2)


def test_few_iterations_lie_above_on_average(host):
    generator, z = linear(host, spread(24, 24, 100)), np.zeros((400, 24))
    exact = host.log_det_jtj(generator, z[:1])
    surplus = {}
    for num_iterations in (4, 24):
        options = {"method": "stochastic", "num_iterations": num_iterations}
        drawn = host.log_det_jtj(generator, z, **options)
        surplus[num_iterations] = (drawn.mean() - exact) / (drawn.std() / 20)
    assert surplus[4] > 4 > abs(surplus[24])


# --- lost rank ---


@pytest.mark.parametrize("num_data", [2, 3])
def test_lost_rank(host, num_data):
    """Minus infinity or finite, and the other rows train on."""
    weight = host.array(rng.normal(size=num_data))

    def generator(z):
        first, second = z[:, :1], z[:, 1:]
        return host.xp.concatenate((first + second, (second**2) * weight[1:]), -1)

    z = np.array([[0.3, 0.0], [0.3, 0.5]])
    exact, gradient = host.log_det_and_gradient(generator, z)
    assert exact[0] == -np.inf
    assert np.isfinite(exact[1])
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient[1] != 0)
    stochastic = {"method": "stochastic", "num_probes": 20}
    for method in (SMALLEST, {**SMALLEST, "num_iterations": 2}, stochastic):
        found = host.log_det_jtj(generator, z, **method)
        assert np.all(np.isfinite(found))
        assert found[0] < -10


# --- errors ---


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
def test_wrong_shapes(host, shape, generator, message, method):
    with pytest.raises(ValueError, match=message):
        host.log_det_jtj(generator, np.ones(shape), method=method)


def test_wrong_method(host):
    with pytest.raises(ValueError, match="`method` to be one of"):
        host.log_det_jtj(host.xp.sinh, np.ones((2, 2)), method="qr")


# --- modules of the host, which its file gives ---


def test_jacobian_of_modules(host, generator):
    def at(z):
        return host.to_numpy(generator(host.array(z)))

    z, steps = rng.normal(size=(3, 2)), 1e-5 * np.eye(2)[:, None]
    columns = [(at(z + step) - at(z - step)) / 2e-5 for step in steps]
    found = host.jacobian(generator, z)
    np.testing.assert_allclose(found, np.stack(columns, -1), atol=1e-7)
    expected = np.linalg.slogdet(found.swapaxes(-1, -2) @ found)[1]
    np.testing.assert_allclose(host.log_det_jtj(generator, z), expected, rtol=1e-8)
    smallest = host.smallest_singular_value(generator, z)
    np.testing.assert_allclose(smallest, np.linalg.svd(found)[1][:, -1], rtol=1e-8)
