import math

import array_api_strict
import numpy as np
import pytest

from pyro_ebm.core.evidence.bounds import Flow, entropy_bounds, into_blocks, summarize_bounds
from pyro_ebm.core.evidence.diffusion import (
    REMAINDER,
    flow_times,
    mixed_log_weights,
    smoothed_score,
    smoothing_scale,
    weighted_spread,
)

GRID = np.linspace(-40.0, 40.0, 8001)
STEP = GRID[1] - GRID[0]


def normal(x, variance):
    return np.exp(-(x**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def modes(x, c, time=0.0):
    """Density of two modes at -c and c, and its score, smoothed."""
    parts = normal(x + c, 1 + time), normal(x - c, 1 + time)
    density = (parts[0] + parts[1]) / 2
    return density, -(parts[0] * (x + c) + parts[1] * (x - c)) / (2 * density * (1 + time))


@pytest.mark.parametrize(
    ("c", "divergence"), [(1.0, 0.33683), (2.0, 0.63272), (3.0, 0.68930), (4.0, 0.69305)]
)
def test_the_heat_flow_sees_a_mode_that_slopes_do_not(c, divergence):
    # The left mode alone, against both.
    def fisher(time):
        x = -c + math.sqrt(1 + time) * np.linspace(-9, 9, 2001)
        _, score = modes(x, c, time)
        difference = (-(x + c) / (1 + time) - score) ** 2
        return np.sum(normal(x + c, 1 + time) * difference) * (x[1] - x[0])

    spread = np.asarray(2 + 2 * c**2)
    times, weights = flow_times(spread)
    total = sum(weight * fisher(time) for time, weight in zip(times, weights, strict=True))
    assert divergence - REMAINDER < total < divergence + 1e-5
    assert REMAINDER < 1e-4
    # What is left of it is what the last time says: means 2c apart, in part.
    assert total + c**2 / (2 * times[-1]) == pytest.approx(divergence, abs=2e-5)


@pytest.mark.parametrize("time", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0])
def test_smoothed_scores_are_those_of_the_smoothed_density_at_any_scale(scale, time):
    density, score = modes(GRID, 2.0)
    x = np.linspace(-5, 5, 11)
    found, sizes = smoothed_score(
        x[:, None], time, GRID[None, :, None], score[None, :, None], np.log(density)[None], scale
    )
    np.testing.assert_allclose(found[:, 0], modes(x, 2.0, time)[1], atol=1e-10)
    assert np.all((sizes > 1) & (sizes < len(GRID)))


def test_normal_points_agree_on_the_score_however_few():
    rng = np.random.default_rng(0)
    points, x = 3 + 2 * rng.normal(size=(1, 5, 2)), rng.normal(size=(7, 2))
    found, _ = smoothed_score(x, 0.7, points, -(points - 3) / 4, np.zeros((1, 5)), 4.0)
    np.testing.assert_allclose(found, -(x - 3) / 4.7)


def test_points_without_weight_may_have_infinite_slopes():
    points, slopes = np.array([[[0.0], [9.0]]]), np.array([[[0.0], [np.inf]]])
    weights = np.array([[0.0, -np.inf]])
    found, sizes = smoothed_score(np.ones((1, 1)), 1.0, points, slopes, weights, 1.0)
    assert found.item() == -0.5
    assert sizes.item() == 1.0


def test_mixed_weights_make_draws_of_the_density():
    density, _ = modes(GRID, 2.0)
    x, time, counts = 1.3, 0.5, (3, 7)
    log_base = np.log(normal(GRID, 25.0))
    weights = mixed_log_weights(
        np.array([[x]]),
        np.asarray(time),
        GRID[None, :, None],
        np.log(density)[None],
        log_base[None],
        counts,
    )
    drawn = counts[0] * normal(GRID - x, time) + counts[1] * np.exp(log_base)
    np.testing.assert_allclose(np.exp(weights[0]) * drawn, density, rtol=1e-10)


def test_spread_and_scale():
    rng = np.random.default_rng(0)
    first, second, weights = rng.normal(size=(40, 2)), 3 + rng.normal(size=(30, 2)), rng.random(30)
    pairs = ((first[:, None] - second) ** 2).sum(-1).mean(0)
    expected = np.sum(weights * pairs) / np.sum(weights)
    assert weighted_spread(first, second, np.log(weights)) == pytest.approx(expected)
    score = rng.normal(size=(1000, 2)) / 3
    assert smoothing_scale(score, np.zeros(1000), 100.0) == pytest.approx(9.0, rel=0.1)
    assert smoothing_scale(0 * score, np.zeros(1000), 100.0) == 100.0


def draws(num_draws, seed=0):
    rng = np.random.default_rng(seed)
    log_ratio = rng.normal(size=num_draws)
    return log_ratio, 0.5 * (log_ratio + rng.normal(size=num_draws)) ** 2


def test_bounds_are_their_formulas():
    log_ratio, half_squares = draws(55)
    result = summarize_bounds(log_ratio, half_squares, log_sobolev_constant=0.4)
    error = np.std(log_ratio, ddof=1) / math.sqrt(55)
    assert result.mean_log_ratio == pytest.approx(log_ratio.mean())
    assert result.lower == pytest.approx(log_ratio.mean() - 2 * error)
    both = log_ratio + half_squares / 0.4
    assert result.upper == pytest.approx(both.mean() + 2 * both.std(ddof=1) / math.sqrt(55))
    assert result.penalty == pytest.approx(half_squares.mean())
    assert result.estimate == pytest.approx(np.log(np.exp(log_ratio).mean()))
    assert result.divergence is result.divergence_sample_size is None


def test_a_penalty_alone_bounds_nothing():
    result = summarize_bounds(*draws(20))
    assert result.upper == math.inf
    estimated = summarize_bounds(*draws(20), is_bounded=False)
    assert estimated.lower == -math.inf
    assert estimated.mean_log_ratio == result.mean_log_ratio


def test_the_smaller_upper_bound_counts():
    log_ratio, half_squares = draws(55)
    flow = Flow(np.linspace(0.5, 0.7, 5), np.asarray(30.0))
    result = summarize_bounds(log_ratio, half_squares, flow=flow)
    blocks = log_ratio.reshape(5, 11).mean(1) + flow.divergences
    upper = blocks.mean() + 2 * blocks.std(ddof=1) / math.sqrt(5)
    assert result.upper == pytest.approx(upper)
    assert result.divergence == pytest.approx(0.6)
    assert result.divergence_sample_size == 30
    options = {"flow": flow, "log_sobolev_constant": 100.0}
    tight = summarize_bounds(log_ratio, half_squares, **options)
    assert tight.upper < upper
    loose = summarize_bounds(log_ratio, half_squares, flow=flow, log_sobolev_constant=0.01)
    assert loose.upper == pytest.approx(upper)


def test_bounds_cover_their_means():
    runs = [summarize_bounds(*draws(100, seed), log_sobolev_constant=2.0) for seed in range(400)]
    assert np.mean([run.lower < 0 for run in runs]) > 0.95
    assert np.mean([run.upper > 0.5 for run in runs]) > 0.92  # A skewed sum has a thin left tail.


def test_blocks_leave_out_what_does_not_fit():
    blocks = into_blocks(np.arange(14).reshape(7, 2), 3)
    np.testing.assert_array_equal(blocks, np.arange(12).reshape(3, 2, 2))


def test_entropies_that_may_be_too_high_bound_nothing():
    assert entropy_bounds("exact", None)
    assert entropy_bounds("noise", None)
    assert entropy_bounds("smallest_singular_value", None)
    assert not entropy_bounds("smallest_singular_value", 2)
    assert not entropy_bounds("stochastic", None)


def test_other_array_libraries():
    arrays = draws(40)
    flow = Flow(np.linspace(0.5, 0.7, 4), np.asarray(30.0))
    expected = summarize_bounds(*arrays, log_sobolev_constant=0.4, flow=flow)
    strict = map(array_api_strict.asarray, (*arrays, *flow))
    first, second, *parts = strict
    result = summarize_bounds(first, second, log_sobolev_constant=0.4, flow=Flow(*parts))
    for part, other in zip(result, expected, strict=True):
        np.testing.assert_allclose(np.asarray(part), other)
    points = np.random.default_rng(0).normal(size=(2, 3, 2))
    given = points[:, 0], np.asarray(0.3), points, -points, points[..., 0], np.asarray(0.5)
    for part, other in zip(
        smoothed_score(*map(array_api_strict.asarray, given)), smoothed_score(*given), strict=True
    ):
        np.testing.assert_allclose(np.asarray(part), other)
    times, _ = flow_times(array_api_strict.asarray(3.0))
    np.testing.assert_allclose(np.asarray(times), flow_times(np.asarray(3.0))[0])
