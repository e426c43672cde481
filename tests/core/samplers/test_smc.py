import math
from types import SimpleNamespace

import array_api_strict
import numpy as np
import pytest

from pyro_ebm.core.samplers import smc
from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.smc_draws import arrange, number_of_draws, summarize

rng = np.random.default_rng(0)


def population(tilt, position=None):
    """A population at the start, of shape `(N, *batch)`, with flat gradients."""
    position = np.zeros_like(tilt) if position is None else position
    zero = np.zeros_like(tilt)
    return smc.begin(smc.Particles(position, zero, tilt, np.zeros_like(position), position))


def next_increment(people):
    search = smc.begin_search(people)
    for _ in range(smc.NUM_HALVINGS):
        search = search.halved()
    return search.increment()


def test_half_of_the_population_is_effective():
    tilt = np.stack([1e6 * rng.normal(size=1000), 1e-3 * rng.normal(size=1000)], axis=-1)
    increment = next_increment(population(tilt))
    weights = np.exp(-increment[0] * (tilt[:, 0] - tilt[:, 0].min()))
    assert weights.sum() ** 2 / (weights**2).sum() == pytest.approx(500, rel=1e-3)
    assert increment[1] == 1.0


def test_infinite_energies_have_no_weight():
    tilt = np.where(np.arange(100) < 60, np.inf, 0.5 * rng.normal(size=100))
    people = population(tilt)
    assert next_increment(people) == 1.0  # Of those that live, more than half are effective.
    log_weights = smc.log_weights(people, 0.5)
    assert np.all(log_weights[:60] == -math.inf)
    np.testing.assert_array_equal(log_weights[60:], -0.5 * tilt[60:])
    chosen = np.full(100, 70)
    moved = smc.resampled(people, 0.5, chosen)
    assert moved.inverse_temperature == 0.5
    assert moved.log_normalizer == pytest.approx(np.log(np.exp(log_weights).mean()))
    assert np.all(moved.ancestors == 70)


def test_weights_in_half_precision():
    """Their sums are in single precision; particles are not."""
    people = population(np.linspace(0, 1, 100).astype(np.float16))
    assert people.log_normalizer.dtype == smc.log_weights(people, 0.5).dtype == np.float32
    assert people.log_step_size.dtype == np.float16


@pytest.mark.filterwarnings("ignore:divide by zero encountered in log")
@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("wrong", [math.nan, -math.inf])
def test_energies_that_are_no_numbers_end_the_path(wrong):
    tilt = np.stack([rng.normal(size=10), np.full(10, 1.0), np.full(10, math.inf)], axis=-1)
    tilt[3, 0] = wrong
    people = population(tilt)
    assert people.is_cooling.tolist() == [False, True, False]
    done = smc.resampled(people, next_increment(people), np.broadcast_to(np.arange(10), (3, 10)).T)
    assert np.isnan(done.finite_positions()).all(0).tolist() == [True, False, True]


def test_a_move_keeps_the_density_and_tunes_its_step():
    """Draws of N(0, 1/4), the end of a path from N(0, 1) with E = 3 x^2 / 2."""

    def evaluate(x):
        return smc.Particles(x, 0.5 * x**2, 1.5 * x**2, x, 3 * x)

    x = 0.5 * rng.normal(size=50_000)
    people = smc.begin(evaluate(x))
    one = np.ones_like(people.inverse_temperature)
    people = people._replace(inverse_temperature=one, scale=0.5 * one)
    for _ in range(20):
        noise, uniform = rng.normal(size=x.shape), rng.uniform(size=x.shape)
        people = smc.move(people, evaluate, noise, uniform, 20)
    assert people.particles.position.var() == pytest.approx(0.25, rel=0.03)
    assert people.acceptance_rate == pytest.approx(0.6, abs=0.1)
    log_step_size = float(people.log_step_size)
    people = smc.move(people, evaluate, 0 * noise, uniform, 1)  # Without noise all accept.
    assert people.log_step_size == pytest.approx(log_step_size + 1 - 0.574, abs=0.1)


@pytest.mark.parametrize("has_gradients", [True, False])
def test_scale_is_that_of_the_population_after_its_change(has_gradients):
    position = rng.normal(size=(2000, 2)) * [1.0, 0.01]
    # N(0, 1) times exp(-2 x^2) has precision 5.
    gradients = (position / [1.0, 1e-4], position * [4.0, 0.0]) if has_gradients else (None, None)
    people = smc.begin(smc.Particles(position, *np.zeros((2, 2000)), *gradients))
    weights = np.exp(-2 * position[:, 0] ** 2)
    chosen = rng.choice(2000, size=2000, p=weights / weights.sum())
    scale = smc.resampled(people, 1.0, chosen).scale
    np.testing.assert_allclose(scale, [5**-0.5, 0.01], rtol=0.1)


def two_modes(has_gradients):
    """Standard deviation .1 at -5 and 5."""
    ends, inner = np.where(np.arange(2000) % 2, 5.0, -5.0), 0.1 * rng.normal(size=2000)
    position, gradient = (ends + inner)[:, None], (inner / 0.01)[:, None]
    gradients = (gradient, 0 * gradient) if has_gradients else (None, None)
    return gradient, smc.begin(smc.Particles(position, inner, 0 * inner, *gradients))


def test_scale_is_closer_to_that_of_one_mode():
    """The root of .1 times 5, where one mode has .1 and both 5."""
    _, people = two_modes(has_gradients=True)
    people = smc.resampled(people, 1.0, np.arange(2000))
    np.testing.assert_allclose(people.scale, math.sqrt(0.1 * 5), rtol=0.05)


def test_a_kernel_moves_in_units_of_its_own_gradients():
    gradient, people = two_modes(has_gradients=False)
    people = smc.resampled(people, 1.0, np.arange(2000))
    np.testing.assert_allclose(people.scale, 5.0, rtol=0.05)
    numbers = np.zeros(2000), gradient, None, np.ones(()), np.ones(()), 0
    kernel = SimpleNamespace(target_accept_prob=0.8, init=lambda _, x: ChainState(x, *numbers))
    state = smc.state_of(people, kernel, None)
    np.testing.assert_allclose(state.scale, math.sqrt(0.1 * 5), rtol=0.05)


def test_other_array_libraries():
    tilt = rng.normal(size=(50, 3))
    strict = population(array_api_strict.asarray(tilt), array_api_strict.asarray(tilt))
    np.testing.assert_allclose(
        np.asarray(next_increment(strict)), next_increment(population(tilt, tilt)), rtol=1e-9
    )


@pytest.mark.parametrize(
    ("sample_shape", "batch_shape", "own_shape"),
    [((), (), ()), ((5,), (3, 4), ()), ((2, 5), (3, 4), (4,)), ((5,), (3, 2, 4), (3, 1, 4))],
)
def test_arrangement_of_draws(sample_shape, batch_shape, own_shape):
    number = number_of_draws(sample_shape, batch_shape, own_shape)
    laws = np.arange(math.prod(own_shape)).reshape(own_shape)
    draws = np.broadcast_to(laws[..., None], (number, *own_shape, 2))
    found = arrange(draws, sample_shape, batch_shape, own_shape, (2,))
    assert found.shape == (*sample_shape, *batch_shape, 2)
    np.testing.assert_array_equal(found[..., 0], np.broadcast_to(laws, found.shape[:-1]))


@pytest.mark.parametrize(("ends", "error"), [([0, 0, 1, 1], 0.0), ([0, 0, 0, 0], 0.5**0.5)])
def test_error_of_a_population_that_starts_from_copies(ends, error):
    """Two draws, each twice: 1 / 2 of the variance is known from the start."""
    zero = np.zeros(4)
    particles = smc.Particles(zero[:, None], zero, zero, None, None)
    population, chosen = smc.begin(particles, np.array(ends)), np.array([3, 0])
    starts, family_sums = np.array([0, 0, 1, 1]), lambda x, w: np.bincount(x, w, minlength=4)
    draws = summarize(population, zero[:2, None], chosen, starts, np.ones(2), family_sums)
    assert draws.ancestors.tolist() == [ends[3], 0]
    assert float(draws.standard_error) == pytest.approx(error)
