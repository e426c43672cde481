import numpy as np
import pytest
from helpers.jacobians import (
    ENTROPIES,
    SPREAD_BOUND,
    SPREAD_ESTIMATES,
    SPREAD_TRUTH,
    normal_entropy,
    spread,
)

from pyro_ebm.core.objectives import krylov
from pyro_ebm.core.objectives.jacobian import check_method, log_det, smallest

rng = np.random.default_rng(0)


def products(matrices):
    """Of matrices (N, D, d), as two functions of rows."""
    return (
        lambda v: (matrices @ v[..., None])[..., 0],
        lambda u: (u[:, None, :] @ matrices)[:, 0, :],
    )


def lobpcg(maps, start, num_steps):
    """All states from the first to the last."""
    states = [krylov.begin_descent(maps[0], start)]
    for _ in range(num_steps):
        states.append(krylov.descend(*maps, states[-1]))
    return states


def estimates(maps, start, num_steps):
    """Of the smallest singular value, shape (1 + num_steps, N)."""
    states = lobpcg(maps, start, num_steps)
    return np.stack([np.linalg.norm(maps[0](state.vector), axis=-1) for state in states])


def golub_kahan(maps, probes, num_data, num_steps):
    state = krylov.begin_bidiagonal(probes, num_data, num_steps)
    for step in range(num_steps):
        state = krylov.bidiagonalize(*maps, step, state)
    return state


def log_quadratic_form(matrices, probes):
    """v log(J' J) v, by eigenvectors."""
    values, vectors = np.linalg.eigh(np.swapaxes(matrices, 1, 2) @ matrices)
    parts = (probes[:, None, :] @ vectors)[:, 0, :]
    return (parts**2 * np.log(values)).sum(-1)


# --- whole Jacobians ---


@pytest.mark.parametrize(("matrix", "entropy", "with_the_smallest"), ENTROPIES)
def test_entropy_of_a_linear_generator(matrix, entropy, with_the_smallest):
    num_dims, jacobian = len(matrix), matrix[None]
    base = normal_entropy(num_dims)
    assert base + log_det(jacobian)[0] / 2 == pytest.approx(entropy, abs=1e-6)
    bound = base + num_dims * np.log(smallest(jacobian)[0])
    assert bound == pytest.approx(with_the_smallest, abs=1e-6)
    taller = np.concatenate([matrix, np.zeros((2, num_dims))])[None]
    assert base + log_det(taller)[0] / 2 == pytest.approx(entropy, abs=1e-6)


def test_smallest_value_is_a_bound_exact_for_equal_ones():
    jacobians = rng.normal(size=(50, 5, 3))
    assert np.all(6 * np.log(smallest(jacobians)) < log_det(jacobians))
    rotation = np.linalg.qr(rng.normal(size=(5, 3)))[0][None]
    assert 6 * np.log(smallest(0.7 * rotation)) == pytest.approx(log_det(0.7 * rotation))
    assert log_det(0.7 * rotation) == pytest.approx(6 * np.log(0.7))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_condition_is_not_squared(dtype):
    matrix = spread(6, 3, 1e5)[None].astype(dtype)
    assert log_det(matrix)[0] == pytest.approx(-3 * np.log(1e5), rel=1e-3)


@pytest.mark.parametrize("num_data", [3, 5])
def test_lost_rank_and_nan_stay_in_their_rows(num_data):
    jacobians = rng.normal(size=(3, num_data, 3))
    jacobians[1, :, 2] = 0
    jacobians[2, 0, 0] = np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        found = log_det(jacobians)
    assert np.isfinite(found[0])
    assert found[1] == -np.inf
    assert np.isnan(found[2])
    values = smallest(jacobians)
    assert values[0] > 0
    assert values[1] == pytest.approx(0, abs=1e-12)
    assert np.isnan(values[2])


# --- the smallest singular value by products ---


def test_table_of_the_methods_page():
    matrix = spread(784, 128, 100)
    maps = (lambda v: v @ matrix.T), (lambda u: u @ matrix)
    found = 128 * np.log(estimates(maps, rng.normal(size=(20, 128)), 100)).mean(-1)
    for num_steps, expected in SPREAD_ESTIMATES.items():
        assert found[num_steps] == pytest.approx(expected, rel=0.1), num_steps
    # Two steps are no bound.
    assert found[2] > SPREAD_TRUTH > SPREAD_BOUND
    assert log_det(matrix[None]) / 2 == pytest.approx(SPREAD_TRUTH, abs=0.05)
    assert 128 * np.log(smallest(matrix[None])) == pytest.approx(SPREAD_BOUND, abs=0.05)


def test_estimates_never_grow_nor_fall_below_the_truth():
    matrices = rng.normal(size=(100, 9, 6))
    found = estimates(products(matrices), rng.normal(size=(100, 6)), 40)
    assert np.all(np.diff(found, axis=0) <= 1e-12)
    assert np.all(found >= smallest(matrices) - 1e-12)
    np.testing.assert_allclose(found[-1], smallest(matrices), rtol=1e-6)


@pytest.mark.parametrize("num_latent", [1, 2])
def test_two_dimensions_take_one_step(num_latent):
    matrices = rng.normal(size=(100, 3, num_latent))
    found = estimates(products(matrices), rng.normal(size=(100, num_latent)), 3)
    for later in found[1:]:
        np.testing.assert_allclose(later, smallest(matrices), rtol=1e-8)


def test_three_dimensions_take_two_steps():
    matrices = rng.normal(size=(100, 4, 3))
    found = estimates(products(matrices), rng.normal(size=(100, 3)), 2)
    np.testing.assert_allclose(found[2], smallest(matrices), rtol=1e-8)


def test_descent_stays_at_a_minimum():
    rotations = np.linalg.qr(rng.normal(size=(4, 5, 3)))[0]
    rotations[2] = 0.0
    rotations[3, 0, 0] = np.nan
    start = rng.normal(size=(4, 3))
    first, *_, last = lobpcg(products(rotations), start, 4)
    np.testing.assert_allclose(np.linalg.norm(last.vector, axis=-1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(last.vector[2:], first.vector[2:])


# --- stochastic quadrature ---


def test_bidiagonal_factors():
    matrices = rng.normal(size=(3, 9, 6))
    probes = rng.normal(size=(3, 6))
    state = golub_kahan(products(matrices), probes, 9, 4)
    for row, matrix in enumerate(matrices):
        bidiagonal = np.diag(state.diagonal[row]) + np.diag(state.above[row, 1:], 1)
        left, right = state.left[row], state.right[row]
        np.testing.assert_allclose(matrix @ right, left @ bidiagonal, atol=1e-12)
        for vectors in (left, right):
            np.testing.assert_allclose(vectors.T @ vectors, np.eye(4), atol=1e-12)
        np.testing.assert_allclose(right[:, 0] * state.above[row, 0], probes[row])


@pytest.mark.parametrize("num_steps", [6, 9])
def test_quadrature_is_exact_in_all_dimensions(num_steps):
    matrices, probes = rng.normal(size=(20, 9, 6)), rng.normal(size=(20, 6))
    state = golub_kahan(products(matrices), probes, 9, num_steps)
    total, slope = krylov.quadrature(state)
    np.testing.assert_allclose(total, log_quadratic_form(matrices, probes), rtol=1e-8)
    gram = np.swapaxes(matrices, 1, 2) @ matrices
    expected = matrices @ np.linalg.solve(gram, probes[..., None])
    np.testing.assert_allclose(slope, expected[..., 0], rtol=1e-6, atol=1e-9)


def test_fewer_steps_give_larger_values():
    matrix = spread(64, 64, 100)[None]
    probes = rng.choice([-1.0, 1.0], size=(50, 64))
    exact = log_quadratic_form(matrix, probes)
    maps = (lambda v: v @ matrix[0].T), (lambda u: u @ matrix[0])
    surplus = [
        krylov.quadrature(golub_kahan(maps, probes, 64, num_steps))[0] - exact
        for num_steps in (1, 2, 4, 8, 16)
    ]
    assert np.all(np.diff(surplus, axis=0) < 0)
    assert np.all(surplus[-1] > 0)


def test_more_steps_than_different_values():
    left, right = (np.linalg.qr(rng.normal(size=(5, n, 4)))[0] for n in (7, 4))
    values = np.array([2.0, 2.0, 0.5, 0.5])
    matrices, probes = (left * values) @ right, rng.normal(size=(5, 4))
    total, slope = krylov.quadrature(golub_kahan(products(matrices), probes, 7, 4))
    np.testing.assert_allclose(total, log_quadratic_form(matrices, probes), rtol=1e-8)
    expected = np.linalg.pinv(np.swapaxes(matrices, 1, 2)) @ probes[..., None]
    np.testing.assert_allclose(slope, expected[..., 0], rtol=1e-8)


def test_quadrature_where_rank_is_lost():
    # With random signs, as in use, every direction has the same weight.
    matrices, probes = rng.normal(size=(3, 5, 3)), rng.choice([-1.0, 1.0], (3, 3))
    matrices[1, :, 2] = 0
    matrices[2, 0, 0] = np.nan
    total, slope = krylov.quadrature(golub_kahan(products(matrices), probes, 5, 3))
    assert np.all(np.isfinite(total[:2]))
    assert total[1] < -10
    assert np.isnan(total[2])
    assert np.all(np.isfinite(slope[:2]))


# --- choices ---


def test_number_of_iterations():
    assert check_method("exact", None, 1, 3) is None
    assert check_method("smallest_singular_value", None, 1, 3) is None
    assert check_method("smallest_singular_value", 0, 1, 3) == 0
    assert check_method("stochastic", None, 1, 3) == 3
    assert check_method("stochastic", None, 1, 300) == 32
    assert check_method("stochastic", 50, 1, 300) == 50
    assert check_method("stochastic", 50, 1, 30) == 30


@pytest.mark.parametrize(
    ("method", "num_iterations", "num_probes", "message"),
    [
        ("svd", None, 1, "`method` to be one of .*got 'svd'"),
        ("exact", 3, 1, "no `num_iterations` for method 'exact'.*got 3"),
        ("stochastic", 0, 1, "`num_iterations` to be an integer of at least 1, got 0"),
        ("smallest_singular_value", -1, 1, "at least 0, got -1"),
        ("stochastic", None, 0, "`num_probes` to be an integer of at least 1, got 0"),
    ],
)
def test_bad_choices(method, num_iterations, num_probes, message):
    with pytest.raises(ValueError, match=message):
        check_method(method, num_iterations, num_probes, 3)
