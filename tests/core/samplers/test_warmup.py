import array_api_strict
import numpy as np
import pytest

from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.settings import MALA, Langevin
from pyro_ebm.core.samplers.warmup import (
    average_step_size,
    begin_dual_averaging,
    begin_moments,
    brake,
    dual_averaging,
    fitting_step_size,
    initial_step_size,
    learned_scale,
    num_braked,
    step_size_in_scales,
    update_moments,
    warmup_windows,
)

rng = np.random.default_rng(0)


def test_brakes():
    brakes, rate = np.array([1.0, 1.0, 0.25]), np.array([0.0, 0.5, 0.9])
    for expected in ([0.5, 1.0, 0.5], [0.25, 1.0, 1.0], [0.125, 1.0, 1.0]):
        brakes = brake(brakes, rate)
        np.testing.assert_array_equal(brakes, expected)
    assert [num_braked(n) for n in (0, 1, 10, 100, 1000)] == [0, 0, 5, 50, 75]


@pytest.mark.parametrize("event_shape", [(), (8,), (2, 4)])
def test_initial_step_size_is_relative_to_the_scale(event_shape):
    # U = |x|^2 / (2 s^2) at exact draws: s^2 d^(-1/3), up to the error of a mean of d N squares.
    draws, scale = 1e-3 * rng.normal(size=(2000, *event_shape)), 1e-3
    num_coordinates = draws[0].size
    potential = (draws.reshape(2000, -1) ** 2).sum(1) / (2 * scale**2)
    step_size = initial_step_size(potential, draws / scale**2)
    error = 4 * np.sqrt(2 / draws.size)
    np.testing.assert_allclose(step_size / scale**2, num_coordinates ** (-1 / 3), rtol=error)


@pytest.mark.parametrize("gradient", [0.0, np.nan, np.inf])
def test_initial_step_size_without_a_gradient(gradient):
    with np.errstate(divide="ignore"):
        assert initial_step_size(np.zeros(3), np.full((3, 2), gradient)) == 1.0


@pytest.mark.parametrize("start", [1e-4, 1.0, 1e3])
def test_step_size_reaches_its_target(start):
    # Acceptance exp(-h) is 0.6 at h = -log 0.6; each element of a batch has a scale of its own.
    units = np.array([1.0, 100.0])
    state = begin_dual_averaging(start * np.ones(2))
    for _ in range(500):
        noise = rng.uniform(0.8, 1.2, size=2)
        rate = np.exp(-np.exp(state.log_step_size) / units * noise)
        state = dual_averaging(state, rate, 0.6)
    np.testing.assert_allclose(average_step_size(state) / units, -np.log(0.6), rtol=0.1)


def test_first_update():
    state = dual_averaging(begin_dual_averaging(np.array(0.5)), np.array(0.2), 0.8)
    # mu - sqrt(1) / gamma * (alpha* - alpha) / (1 + t0)
    expected = np.log(5.0) - 0.6 / 11 / 0.05
    np.testing.assert_allclose(state.log_step_size, expected)
    np.testing.assert_allclose(state.log_average, expected)


def states(positions, scales):
    """States of chains on a normal law, ``(steps, chains, *shape)``."""
    ones = np.ones(positions[0].shape[-1:])
    return [ChainState(x, None, x / scales**2, None, 0.1, ones, 0) for x in positions]


def learned(runs):
    moments = begin_moments(runs[0])
    for state in runs:
        moments = update_moments(moments, state)
    return moments, learned_scale(moments, runs[-1], 1.0)


def test_scales_of_pieces_of_a_gaussian():
    """Exact, also where chains are far apart and have hardly moved."""
    scales = np.array([0.1, 1.0, 10.0])
    starts, paths = rng.normal(size=(5, 3)), 0.05 * rng.normal(size=(7, 5, 3))
    moments, found = learned(states(scales * (starts + paths), scales))
    assert moments.count == 7
    pieces = scales * paths
    np.testing.assert_allclose(moments.squares[0] / 7, pieces.var(0), rtol=1e-9)
    np.testing.assert_allclose(found, scales)


def test_scales_without_a_gradient_or_a_spread():
    draws = 5.0 + rng.normal(size=(7, 11, 3)) * [0.1, 1.0, 0.0]
    runs = states(draws, np.ones(3))
    np.testing.assert_allclose(learned(runs)[1], 1.0)
    sloped = [state._replace(gradient=1e3 + 1e-3 * state.gradient) for state in runs]
    within = np.sqrt(draws.var(0).mean(0))
    np.testing.assert_allclose(learned(sloped)[1], [*within[:2], 1.0])
    outside = [state._replace(gradient=state.gradient.copy()) for state in runs]
    for state in outside:
        state.gradient[0] = np.nan
    np.testing.assert_allclose(learned(outside)[1], 1.0, rtol=0.1)
    blind = [state._replace(gradient=None) for state in runs]
    np.testing.assert_allclose(learned(blind)[1], [*draws[..., :2].std((0, 1)), 1.0])
    np.testing.assert_array_equal(learned_scale(begin_moments(runs[0]), runs[0], 1.0), 1.0)


def test_scales_in_half_precision():
    """Squares of steep gradients would overflow."""
    half = [x.astype(np.float16) for x in 1e-3 * rng.normal(size=(40, 200, 1))]
    runs = [state._replace(gradient=1000 * (1000 * state.position)) for state in states(half, 1.0)]
    found = learned(runs)[1]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, 1e-3, rtol=0.01)


@pytest.mark.parametrize("num_warmup", [20, 50, 149, 150, 200, 1000, 1234])
def test_windows(num_warmup):
    windows = warmup_windows(num_warmup)
    for (_, stop), (start, _) in zip(windows, windows[1:], strict=False):
        assert stop == start
    lengths = [stop - start for start, stop in windows]
    assert all(later >= 2 * earlier for earlier, later in zip(lengths, lengths[1:], strict=False))
    assert 0 < windows[0][0] < windows[-1][1] < num_warmup


def test_no_windows_in_a_short_warmup():
    assert warmup_windows(19) == []


def test_strict_arrays():
    state = begin_dual_averaging(array_api_strict.asarray(0.5))
    state = dual_averaging(state, array_api_strict.asarray(0.9), 0.8)
    assert average_step_size(state) > 0.5
    ones = array_api_strict.ones(4)
    assert initial_step_size(ones, array_api_strict.ones((4, 2))).shape == ()
    position = array_api_strict.asarray(rng.normal(size=(4, 2)))
    state = ChainState(position, None, 2.0 * position, None, 0.1, array_api_strict.ones(2), 0)
    moments = update_moments(update_moments(begin_moments(state), state), state)
    assert learned_scale(moments, state, 1.0).shape == (2,)
    assert brake(ones, 0 * ones)[0] == 0.5


def test_step_size_where_scales_are_known():
    """Of a normal in units of its scales, for each of two elements of a batch."""
    scale = np.array([[1e-3, 1.0, 50.0], [1.0, 2.0, 3.0]])
    gradient = rng.normal(size=(5000, 2, 3)) / scale
    expected = 3 ** (-1 / 3)
    np.testing.assert_allclose(step_size_in_scales(gradient, scale, 2), expected, rtol=0.05)
    np.testing.assert_allclose(step_size_in_scales(3 * gradient, scale, 2), expected / 9, rtol=0.05)
    # No more where gradients vanish or are not finite, and without what a scale of 0 holds.
    for factor in (0.0, np.inf):
        with np.errstate(all="ignore"):
            steps = step_size_in_scales(factor * gradient, scale, 2)
        np.testing.assert_allclose(steps, expected)
    held = np.where(np.arange(3) == 0, 0.0, scale)
    assert np.all(step_size_in_scales(gradient, held, 2) <= expected)


@pytest.mark.parametrize("temperature", [1.0, 16.0])
def test_fitting_step_size_of_a_hot_level(temperature):
    """The gradient of a level is that at temperature 1."""
    level = rng.normal(size=(5000, 3))
    state = ChainState(level, level[:, 0], temperature * level, None, 0.1, np.ones(3), 0)
    found = fitting_step_size(MALA(), state, np.ones(()), temperature)
    assert found == pytest.approx(3 ** (-1 / 3), rel=0.05)
    assert fitting_step_size(Langevin(0.1), state, 7.0, temperature) == 7.0
