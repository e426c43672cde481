import math
from types import SimpleNamespace

import array_api_strict
import numpy as np
import pytest

from pyro_ebm.core.evidence.annealing import (
    are_uneven,
    begin_paths,
    begin_pilots,
    describe_stuck_draws,
    equidistant_schedule,
    finish_paths,
    log_weight_increment,
    pilot_inverse_temperatures,
)
from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.settings import MALA

PILOT = np.array(pilot_inverse_temperatures(100))


def distances(precision):
    """From 0 to beta, for E = precision x^2 / 2 on N(0, 1): sd of E times d(beta), integrated."""
    return np.log1p(precision * PILOT) / math.sqrt(2)


def shares(num_temperatures):
    return np.linspace(0, 1, num_temperatures + 1)


@pytest.mark.parametrize("precision", [1e-3, 10.0, 1e4])
def test_temperatures_are_equally_far_apart(precision):
    betas, *_ = equidistant_schedule(shares(50), PILOT, distances(precision), 0 * PILOT)
    assert (betas[0], betas[-1]) == (0.0, 1.0)
    covered = np.log1p(precision * betas) / np.log1p(precision)
    np.testing.assert_allclose(0.9 * covered + 0.1 * betas, shares(50), atol=2e-3)


def test_each_batch_element_has_its_own_schedule():
    both = np.stack([distances(1.0), distances(1e3)], axis=-1)
    log_steps = np.stack([-PILOT, 3 - 2 * PILOT], axis=-1)
    scales = np.stack([PILOT, 1 + PILOT], axis=-1)[..., None]
    result = equidistant_schedule(shares(7), PILOT, both, log_steps, scales)
    for index, precision in enumerate([1.0, 1e3]):
        own = distances(precision), log_steps[:, index], scales[:, index]
        single = equidistant_schedule(shares(7), PILOT, *own)
        for part, alone in zip(result, single, strict=True):
            np.testing.assert_allclose(part[:, index], alone)
    # A step size that is linear in the temperature is found at any temperature.
    betas, steps, scales = result
    np.testing.assert_allclose(np.log(steps), np.array([0, 3]) - np.array([1, 2]) * betas)
    # Scales are those of the last temperature of the pilot run that is no hotter.
    below = np.max(np.where(PILOT <= betas[..., None] + 1e-12, PILOT, 0), axis=-1)
    np.testing.assert_allclose(scales[..., 0] - [0, 1], below)
    backward = result.reversed()
    np.testing.assert_allclose(backward.scales, scales[::-1])
    np.testing.assert_allclose(result.last()[1], [[1], [2]])
    np.testing.assert_allclose(backward.inverse_temperatures, betas[::-1])
    np.testing.assert_allclose(backward.step_sizes, steps[::-1])


def test_one_step_constant_energies_and_a_jump():
    betas, steps, _ = equidistant_schedule(shares(1), PILOT, distances(5.0), PILOT)
    np.testing.assert_allclose(betas, [0, 1])
    np.testing.assert_allclose(steps, [1, math.e])
    # Where the energy is constant, temperatures are spread evenly.
    np.testing.assert_allclose(
        equidistant_schedule(shares(4), PILOT, 0 * PILOT, PILOT)[0], shares(4)
    )
    # All the distance at once, where float32 cannot tell the first temperatures apart.
    sudden = np.where(PILOT > 0, 1e4, 0).astype(np.float32)
    arguments = (part.astype(np.float32) for part in (shares(10), PILOT, sudden, PILOT))
    betas, steps, _ = equidistant_schedule(*arguments)
    assert betas.dtype == steps.dtype == np.float32
    assert np.all(np.isfinite(steps))
    assert np.all(np.diff(betas) >= 0)


def test_other_array_libraries():
    parts = (shares(5), PILOT, distances(3.0), -PILOT)
    strict = equidistant_schedule(*map(array_api_strict.asarray, parts))
    for one, other in zip(equidistant_schedule(*parts)[:2], strict, strict=False):
        np.testing.assert_allclose(one, np.asarray(other), rtol=1e-12)
    assert strict.scales is strict.last()[1] is strict.reversed().scales is None


def test_log_weight_increment():
    infinite = math.inf
    before = np.array([3.0, 3.0, infinite, infinite])
    after = np.array([1.0, infinite, infinite, 2.0])
    with np.errstate(invalid="ignore"):
        gain = log_weight_increment(before, after)
    assert gain[:3].tolist() == [2.0, -infinite, -infinite]
    assert np.isnan(log_weight_increment(np.array([1.0]), np.array([np.nan])))[0]


def test_stuck_draws_are_named():
    (stuck,) = describe_stuck_draws("prior", "MALA(9)", np.array([0.5, 0.001]))
    assert stuck.startswith("MALA(9) accepted 0.1% of the moves that make draws of prior")
    assert list(describe_stuck_draws("prior", "MALA(9)", np.array(0.5))) == []


def test_paths_that_start_from_copies():
    """Two starts, each twice, of which one gets all of the weight."""
    state = SimpleNamespace(potential=np.zeros(4), position=np.zeros((4, 1)))
    start = begin_paths(state, np.array([0, 1, 0, 1]))
    paths = start._replace(log_weights=np.array([0.0, -np.inf, 0.0, -np.inf]))
    found = finish_paths(
        start, paths, lambda ancestors, weights: np.bincount(ancestors, weights, minlength=4)
    )
    assert found.num_starts == pytest.approx(2.0)
    assert found.effective_sample_size == pytest.approx(1.0)
    assert found.is_resampled


def test_paths_are_resampled_where_few_are_effective():
    """Paths that are all dead have nothing to be resampled by."""
    dead, even, few = np.full(10, -math.inf), np.zeros(10), 5.0 * np.arange(10)
    log_weights = np.stack([dead, even, few], axis=1)
    assert are_uneven(log_weights).tolist() == [False, False, True]


def test_step_sizes_of_pilots_at_the_start():
    """In local units, that of a Gaussian; without, that of the state; one for each context."""
    scales = np.array([[0.1, 10.0], [1e-3, 1.0]])
    position = np.random.default_rng(0).normal(size=(1000, 2, 2)) * scales
    potential, gradient = 0.5 * ((position / scales) ** 2).sum(-1), position / scales**2
    potential[0] = np.inf
    state = ChainState(position, potential, gradient, None, np.ones(()), np.ones(()), 0)
    local = begin_pilots(MALA(), state, learns=True)
    np.testing.assert_allclose(local.step_size, 2 * [2 ** (-1 / 3)], rtol=0.1)
    np.testing.assert_allclose(local.scale, scales, rtol=0.1)
    other = begin_pilots(MALA(), state, learns=False)
    assert other.step_size.tolist() == [1.0, 1.0]
    assert other.scale == 1.0


def test_paths_in_half_precision_have_weights_in_single():
    half = np.zeros(4, np.float16)
    paths = begin_paths(ChainState(half[:, None], half, half[:, None], None, half, half, 0))
    assert paths.log_weights.dtype == np.float32
    assert paths.state.position.dtype == np.float16
