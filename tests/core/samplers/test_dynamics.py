import array_api_strict
import numpy as np
import pytest

from pyro_ebm.core.samplers.dynamics import (
    ChainState,
    accept,
    decide,
    drift,
    hmc_log_acceptance,
    is_finite,
    kick,
    langevin_move,
    mala_log_acceptance,
    refresh,
    unadjusted_info,
)

rng = np.random.default_rng(0)


def test_langevin_move():
    position, gradient, noise = rng.normal(size=(3, 4, 2))
    scale = np.array([0.5, 2.0])
    expected = position - 0.1 * scale**2 * gradient + np.sqrt(2 * 0.1 * 3.0) * scale * noise
    result = langevin_move(position, gradient, noise, 0.1, scale=scale, temperature=3.0)
    np.testing.assert_allclose(result, expected)
    alone = langevin_move(position, gradient, noise, 0.1)
    np.testing.assert_array_equal(alone, langevin_move(position, gradient, noise, 0.1, scale=1.0))


@pytest.mark.parametrize("event_shape", [(), (2,), (2, 3)])
@pytest.mark.parametrize("scaled", [False, True])
def test_mala_acceptance(event_shape, scaled):
    # U(x) = |x|^2, whose gradient is 2 x.
    step_size = 0.3
    x, noise = rng.normal(size=(2, 5, *event_shape))
    scale = rng.uniform(0.5, 2.0, size=event_shape) if scaled else 1.0
    new = langevin_move(x, 2 * x, noise, step_size, scale=scale)
    axes = tuple(range(1, x.ndim))
    potential, new_potential = (x**2).sum(axes), (new**2).sum(axes)

    def log_proposal(end, start):
        mean = start - step_size * scale**2 * 2 * start
        return -(((end - mean) / scale) ** 2).sum(axes) / (4 * step_size)

    expected = potential - new_potential + log_proposal(x, new) - log_proposal(new, x)
    result = mala_log_acceptance(
        potential, 2 * x, new_potential, 2 * new, noise, step_size, scale=scale
    )
    np.testing.assert_allclose(result, expected)


def test_acceptance_without_a_density():
    zero, one = np.zeros(3), np.ones(3)
    potential = np.array([0.0, 0.0, np.inf])
    proposal = np.array([np.inf, np.nan, 0.0])
    expected = [-np.inf, -np.inf, np.inf]
    assert mala_log_acceptance(potential, zero, proposal, zero, zero, 0.1).tolist() == expected
    assert hmc_log_acceptance(potential, one, proposal, one).tolist() == expected


def test_hmc_acceptance():
    velocity, new_velocity = rng.normal(size=(2, 5, 3))
    potential, new_potential = rng.normal(size=(2, 5))
    energy = potential + 0.5 * (velocity**2).sum(1)
    new_energy = new_potential + 0.5 * (new_velocity**2).sum(1)
    result = hmc_log_acceptance(potential, velocity, new_potential, new_velocity)
    np.testing.assert_allclose(result, energy - new_energy)


def test_leapfrog_is_reversible():
    # U(x) = x^2 / 2.
    scale, step_size = np.array([0.5, 2.0]), 0.3

    def leapfrog(x, v):
        v = kick(v, x, step_size / 2, scale=scale)
        x = drift(x, v, step_size, scale=scale)
        return x, kick(v, x, step_size / 2, scale=scale)

    x, v = rng.normal(size=(2, 4, 2))
    there, velocity = leapfrog(x, v)
    back, reversed_velocity = leapfrog(there, -velocity)
    np.testing.assert_allclose(back, x)
    np.testing.assert_allclose(reversed_velocity, -v)


def test_scale_of_kicks_and_drifts():
    x, v = rng.normal(size=(2, 4, 2))
    scale = np.array([0.5, 2.0])
    np.testing.assert_allclose(kick(v, x, 0.3, scale=scale), v - 0.3 * scale * x)
    np.testing.assert_allclose(drift(x, v, 0.3, scale=scale), x + 0.3 * scale * v)


def test_refresh_keeps_unit_variance():
    step_size = np.array(0.7)
    decay = refresh(np.ones(1), np.zeros(1), step_size, 2.0)
    spread = refresh(np.zeros(1), np.ones(1), step_size, 2.0)
    np.testing.assert_allclose(decay, np.exp(-1.4))
    np.testing.assert_allclose(decay**2 + spread**2, 1.0)


def test_accept():
    new, old = np.ones((3, 2)), np.zeros((3, 2))
    taken = accept(np.array([True, False, True]), new, old)
    assert taken.tolist() == [[1, 1], [0, 0], [1, 1]]


def test_decide():
    zero, one = np.zeros(3), np.ones(3)
    state = ChainState(zero, zero, zero, None, np.array(0.1), np.array(1.0), 5)
    log_ratio = np.array([0.5, -2.0, -2000.0])
    moved, info = decide(state, (one, one, one), log_ratio, np.full(3, 0.3))
    assert moved.position.tolist() == moved.gradient.tolist() == [1.0, 0.0, 0.0]
    assert moved.index == 6
    np.testing.assert_allclose(info.acceptance_rate, [1.0, np.exp(-2.0), 0.0])
    assert info.diverging.tolist() == [False, False, True]


@pytest.mark.parametrize("event_shape", [(), (2,)])
def test_unadjusted_info(event_shape):
    gradient = np.ones((3, *event_shape))
    gradient[1] = np.inf
    info = unadjusted_info(np.zeros(3), gradient)
    assert info.acceptance_rate.tolist() == [1.0, 1.0, 1.0]
    assert info.diverging.tolist() == [False, True, False]


def test_units_of_a_batch():
    potential, position = np.zeros((4, 3)), np.zeros((4, 3, 2))
    state = ChainState(position, potential, None, None, np.arange(3.0), np.array(1.0), 0)
    assert state.units()[0].shape == (3, 1)
    assert state._replace(step_size=np.array(0.1)).units()[0].shape == ()


def test_strict_arrays():
    x, noise = (array_api_strict.asarray(a) for a in rng.normal(size=(2, 4, 2)))
    potential = array_api_strict.sum(x * x, axis=1)
    step_size = array_api_strict.asarray(0.1)
    new = langevin_move(x, 2 * x, noise, step_size, scale=array_api_strict.ones(2))
    ratio = mala_log_acceptance(potential, 2 * x, potential, 2 * new, noise, step_size)
    assert ratio.shape == (4,)
    assert refresh(x, noise, step_size, 1.0).shape == (4, 2)


def test_gradients_are_finite_where_every_coordinate_is():
    large = np.finfo(np.float32).max
    gradient = np.array([[large, large], [np.inf, -np.inf], [np.nan, 0], [0, np.inf]], np.float32)
    found = is_finite(gradient, 1), is_finite(gradient[:, 0], 1)
    np.testing.assert_array_equal(found, [[True, False, False, False], [True, False, False, True]])
