from dataclasses import replace

import numpy as np
import pytest
from helpers.divergence_games import (
    BY_NAME,
    TOY_OPTIMA,
    Game,
    differences,
    jacobian,
    log_mixture,
    normal_energy,
)
from scipy import optimize

from pyro_ebm.core.objectives.divergences import DIVERGENCES
from pyro_ebm.core.objectives.f_divergence import f_divergence

rng = np.random.default_rng(0)

NAMES = [*DIVERGENCES, "alpha=-0.5", "alpha=0.5", "le_cam"]
NEYMAN, JENSEN_SHANNON = DIVERGENCES["neyman"], DIVERGENCES["jensen_shannon"]

every_divergence = pytest.mark.parametrize("divergence", [BY_NAME[n] for n in NAMES], ids=NAMES)


# A model N(m, e^2s) with a ripple and a bias, data N(1, 1.2^2) and a critic that is not the best.
# On smooth functions that vanish at both ends the plain sum is exact.
X = np.linspace(-14, 16, 301)
THETA = np.array([0.4, 0.1, 0.2])
OMEGA = np.array([-0.3, -0.2, -0.28, 0.1])


def rippled_energy(theta):
    centred = X - theta[0]
    return 0.5 * (centred / np.exp(theta[1])) ** 2 + 0.05 * np.tanh(centred) + theta[2]


def quadratic_critic(omega):
    return omega @ np.stack([np.ones_like(X), X, X**2, np.sin(X)])


RIPPLED = Game(-0.5 * ((X - 1) / 1.2) ** 2, np.zeros_like(X), rippled_energy, quadratic_critic)


@every_divergence
def test_gradient_is_that_of_the_value(divergence):
    by_energy, by_critic = RIPPLED.gradients(divergence, THETA, OMEGA)
    expected = differences(lambda theta: RIPPLED.value(divergence, theta, OMEGA), THETA)
    np.testing.assert_allclose(by_energy, expected, rtol=1e-9, atol=1e-10)
    expected = differences(lambda omega: RIPPLED.value(divergence, THETA, omega), OMEGA)
    np.testing.assert_allclose(by_critic, -expected, rtol=1e-9, atol=1e-10)


# Methods page, O2: divergence, V and its gradient in (m, s, c); D_f and its gradient in (m, s).
STATED = {
    "kl": (-0.309429, (-0.516015, -0.353427, -0.119776), 0.170805, (-0.516015, -0.473258)),
    "reverse_kl": (-0.229008, (-0.542035, -1.197360, 0.262929), 0.146404, (-0.440801, -0.131306)),
    "jensen_shannon": (
        -0.119211,
        (-0.225871, -0.459959, 0.058924),
        0.075616,
        (-0.219919, -0.119449),
    ),
    "squared_hellinger": (
        -0.125464,
        (-0.240906, -0.439243, 0.050476),
        0.077341,
        (-0.228760, -0.133073),
    ),
    "pearson": (-2.467346, (-7.897405, 32.082707, -4.744347), 0.504159, (-1.858777, -3.352057)),
    "neyman": (-0.457391, (-1.594431, -3.647505, 1.142831), 0.290811, (-0.986638, 0.151272)),
    "alpha=-0.5": (-0.223888, (-0.650165, -1.494314, 0.413167), 0.143668, (-0.453903, -0.025179)),
    "alpha=0.5": (-0.250928, (-0.481813, -0.878486, 0.100951), 0.154682, (-0.457521, -0.266146)),
}


@pytest.mark.parametrize("name", STATED)
def test_stated_values(name):
    divergence, (value, slopes, best, best_slopes) = BY_NAME[name], STATED[name]
    assert RIPPLED.value(divergence, THETA, OMEGA) == pytest.approx(value, abs=1e-6)
    by_energy, _ = RIPPLED.gradients(divergence, THETA, OMEGA)
    np.testing.assert_allclose(by_energy, slopes, atol=1e-6)
    assert RIPPLED.divergence(divergence, THETA) == pytest.approx(best, abs=1e-6)
    assert value < best
    by_energy = differences(lambda theta: RIPPLED.divergence(divergence, theta), THETA)
    np.testing.assert_allclose(by_energy, (*best_slopes, 0.0), atol=1e-6)


def with_best_critic(game, theta):
    """The game whose critic at zero is the best for this energy; its parameter adds a bias."""
    values = game.best_critic(theta)
    return replace(game, critic=lambda omega: values + omega[0])


@every_divergence
def test_covariance_is_the_gradient_at_the_best_critic(divergence):
    game, bias = with_best_critic(RIPPLED, THETA), np.zeros(1)
    best = game.divergence(divergence, THETA)
    assert best > divergence.f(np.ones(1))
    assert game.value(divergence, THETA, bias) == pytest.approx(best, abs=1e-12)
    full, by_critic = game.gradients(divergence, THETA, bias)
    covariance, _ = game.gradients(divergence, THETA, bias, "covariance")
    np.testing.assert_allclose(full, covariance, atol=1e-13)
    np.testing.assert_allclose(by_critic, 0, atol=1e-14)
    expected = differences(lambda theta: game.divergence(divergence, theta), THETA)
    np.testing.assert_allclose(full, expected, atol=1e-10)
    assert abs(full[2]) < 1e-14
    if divergence is DIVERGENCES["kl"]:
        contrastive = jacobian(game.energy, THETA) @ (game.data - game.model(THETA))
        np.testing.assert_allclose(full, contrastive, atol=2e-12)


@every_divergence
def test_constants_move_between_energy_and_critic(divergence):
    shift = 0.7
    before = RIPPLED.value(divergence, THETA, OMEGA)
    after = RIPPLED.value(divergence, THETA + [0, 0, shift], OMEGA - np.array([shift, 0, 0, 0]))
    assert after == pytest.approx(before, abs=1e-13)


# Few states: every tuple of five draws can be counted.
FEATURES = rng.normal(size=(2, 2, 5))
STATES = Game(
    rng.normal(size=5),
    rng.normal(size=5),
    lambda theta: theta @ FEATURES[0],
    lambda omega: omega @ FEATURES[1],
)


@pytest.mark.parametrize("num_samples", [2, 3, 5])
@every_divergence
def test_any_number_of_draws_is_unbiased(divergence, num_samples):
    theta, omega = np.array([0.5, -0.3]), np.array([0.2, 0.4])
    by_energy, by_critic = STATES.gradients(divergence, theta, omega, num_samples=num_samples)
    expected = differences(lambda theta: STATES.value(divergence, theta, omega), theta)
    np.testing.assert_allclose(by_energy, expected, atol=1e-10)
    expected = differences(lambda omega: STATES.value(divergence, theta, omega), omega)
    np.testing.assert_allclose(by_critic, -expected, atol=1e-10)


@pytest.mark.parametrize("bound", [np.inf, 1.0])
@pytest.mark.parametrize("num_samples", [2, 7])
def test_kl_is_contrastive_divergence_times_a_number(num_samples, bound):
    positive, negative = 2 * rng.normal(size=5), 2 * rng.normal(size=num_samples)
    weights = f_divergence(DIVERGENCES["kl"], positive, negative, bound=bound)
    ratios = np.exp(np.clip(negative, -bound, bound))
    # Without the correction for few draws it holds for any sample.
    covariance = weights.negative_energy + weights.negative_critic
    uncorrected = (num_samples - 1) / num_samples * covariance - weights.negative_critic
    np.testing.assert_allclose(uncorrected, -ratios.mean(), rtol=1e-14)
    np.testing.assert_allclose(weights.negative_critic, ratios, rtol=1e-15)
    assert np.all(weights.positive_energy == 1)


def test_value_of_each_data_point():
    positive, negative = rng.normal(size=5), rng.normal(size=4)
    value = f_divergence(NEYMAN, positive, negative).value
    np.testing.assert_allclose(value, NEYMAN.a(positive) - NEYMAN.b(negative).mean(), rtol=1e-14)
    clipped = f_divergence(NEYMAN, positive, negative, bound=0.3).value
    positive, negative = np.clip(positive, -0.3, 0.3), np.clip(negative, -0.3, 0.3)
    np.testing.assert_allclose(clipped, f_divergence(NEYMAN, positive, negative).value)


def test_covariance_alone():
    positive, negative = rng.normal(size=5), rng.normal(size=4)
    full = f_divergence(NEYMAN, positive, negative)
    alone = f_divergence(NEYMAN, positive, negative, gradient="covariance")
    assert np.all(alone.positive_energy == 0)
    assert alone.positive_energy.shape == (5,)
    b = NEYMAN.b(negative)
    np.testing.assert_allclose(alone.negative_energy, 4 / 3 * (b - b.mean()))
    np.testing.assert_allclose(alone.negative_energy - full.negative_energy, full.negative_critic)
    for name in ("positive_critic", "negative_critic", "value"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(full, name))


def test_each_context_has_its_own_covariance():
    positive, negative = rng.normal(size=(6, 3)), rng.normal(size=(4, 3))
    together = f_divergence(JENSEN_SHANNON, positive, negative)
    for j in range(3):
        alone = f_divergence(JENSEN_SHANNON, positive[:, j], negative[:, j])
        for ours, theirs in zip(together, alone, strict=True):
            np.testing.assert_array_equal(ours[:, j], theirs)


@pytest.mark.parametrize("gradient", ["full", "covariance"])
@every_divergence
def test_a_bound_keeps_single_precision_finite(divergence, gradient):
    is_bounded = divergence in (JENSEN_SHANNON, DIVERGENCES["gan"])
    bound = np.inf if is_bounded else 20.0
    positive = np.array([-50, 50, -1e30, 1e30, 0], dtype=np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        weights = f_divergence(divergence, positive, positive, bound=bound, gradient=gradient)
    for weight in weights:
        assert weight.dtype == np.float32
        assert np.all(np.isfinite(weight))


def test_one_draw_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 draws of the model, .*, got 1"):
        f_divergence(NEYMAN, np.zeros(3), np.zeros(1))


TOY_X = np.linspace(-14, 16, 301)
TOY = Game(log_mixture(TOY_X), np.zeros_like(TOY_X), normal_energy(TOY_X), lambda omega: omega)


@pytest.mark.parametrize(("name", "mean", "scale", "minimum"), TOY_OPTIMA)
def test_toy_optimum(name, mean, scale, minimum):
    divergence, stated = BY_NAME[name], np.array([mean, scale])
    fit = optimize.minimize(lambda theta: TOY.divergence(divergence, theta), stated, tol=1e-9)
    np.testing.assert_allclose(fit.x, stated, atol=5e-5)
    assert fit.fun == pytest.approx(minimum, abs=1e-5)
    for theta, tolerance in ((fit.x, 1e-6), (stated, 2e-4)):
        game, bias = with_best_critic(TOY, theta), np.zeros(1)
        assert game.value(divergence, theta, bias) == pytest.approx(minimum, abs=1e-5)
        for gradient in ("full", "covariance"):
            by_energy, by_critic = game.gradients(divergence, theta, bias, gradient)
            np.testing.assert_allclose(by_energy, 0, atol=tolerance)
            np.testing.assert_allclose(by_critic, 0, atol=1e-12)
