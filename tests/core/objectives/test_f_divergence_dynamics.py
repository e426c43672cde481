"""Simultaneous learning of energy and critic: convergence and divergence."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.divergence_games import Game, differences, jacobian, normal_energy
from scipy import special

from pyro_ebm.core.objectives.divergences import DIVERGENCES

KL, JENSEN_SHANNON = DIVERGENCES["kl"], DIVERGENCES["jensen_shannon"]
SIX = ["kl", "reverse_kl", "jensen_shannon", "squared_hellinger", "pearson", "neyman"]

Z = np.linspace(-10, 10, 101)
MEAN, SCALE = 0.7, 1.3

# A normal with mean and scale, and a critic that is quadratic in the standardised value.
NORMAL = Game(
    -0.5 * Z**2,
    np.zeros_like(Z),
    normal_energy(MEAN + SCALE * Z),
    lambda omega: omega @ np.stack([np.ones_like(Z), Z, Z**2]),
)
NORMAL_OPTIMUM = np.array([MEAN, SCALE]), np.array([0.0, 0.0, -0.5])


def scale_game(num_dims):
    """One scale of a normal in d dimensions, E = |x|^2 / 2 s^2, by Gauss-Laguerre quadrature."""
    half_square, weights = special.roots_genlaguerre(24, num_dims / 2 - 1)
    features = np.stack([np.ones_like(half_square), 2 * half_square / num_dims])
    return Game(
        np.log(weights),
        np.log(weights) + half_square,
        lambda theta: half_square / theta[0] ** 2,
        lambda omega: omega @ features,
    )


def scale_optimum(num_dims):
    return np.array([1.0]), np.array([0.0, -num_dims / 2])


def flow(game, divergence, gradient, critic_rate, num_energy_parameters):
    """Velocity of all parameters: V descends in the energy's and ascends in the critic's."""

    def velocity(parameters):
        theta, omega = np.split(parameters, [num_energy_parameters])
        by_energy, by_critic = game.gradients(divergence, theta, omega, gradient)
        return -np.concatenate([by_energy, critic_rate * by_critic])

    return velocity


def flow_jacobian(game, divergence, optimum, gradient, critic_rate):
    """Of the velocity at the optimum by differences, in units of f''(1)."""
    velocity = flow(game, divergence, gradient, critic_rate, len(optimum[0]))
    curvature = divergence.a_derivative(np.zeros(1))
    return differences(velocity, np.concatenate(optimum)).T / curvature


def stated_jacobian(game, optimum, gradient, critic_rate):
    """The same from moments of the gradients of energy and critic (methods page, 2.7 and 9)."""
    by_energy, by_critic = jacobian(game.energy, optimum[0]), jacobian(game.critic, optimum[1])
    mean_energy, mean_critic = by_energy @ game.data, by_critic @ game.data
    both = np.concatenate([by_energy, by_critic])
    means = np.concatenate([mean_energy, mean_critic])
    covariance = (game.data * both) @ both.T - np.outer(means, means)
    n = len(mean_energy)
    second_critic = covariance[n:, n:] + np.outer(mean_critic, mean_critic)
    upper = covariance[:n]
    if gradient == "full":
        energy_block = covariance[:n, :n] - np.outer(mean_energy, mean_energy)
        upper = np.concatenate([energy_block, -np.outer(mean_energy, mean_critic)], axis=1)
    lower = np.concatenate([np.outer(mean_critic, mean_energy), second_critic], axis=1)
    return -np.concatenate([upper, critic_rate * lower])


def pair(real, imaginary):
    return [real - 1j * imaginary, real + 1j * imaginary]


@pytest.mark.parametrize("gradient", ["full", "covariance"])
@pytest.mark.parametrize("name", SIX)
def test_all_divergences_are_alike_near_the_optimum(name, gradient):
    found = flow_jacobian(NORMAL, DIVERGENCES[name], NORMAL_OPTIMUM, gradient, 1)
    stated = stated_jacobian(NORMAL, NORMAL_OPTIMUM, gradient, 1)
    np.testing.assert_allclose(found, stated, atol=1e-8)
    if gradient == "full":
        eigenvalues = np.sort_complex(np.linalg.eigvals(found))
        expected = [-3.00822, -1, *pair(-0.79175, 0.39992), -0.59172]
        np.testing.assert_allclose(eigenvalues, expected, atol=1e-5)


# Dimensions, gradient, rate of the critic; eigenvalues by rising real part and the last digit that
# the methods page prints of each (O8). With the full gradient the optimum is stable at any rate in
# one and two dimensions; in three and more it takes a fast critic.
STATED = [
    (1, "full", 1, [-2, -2, -1], 1e-3),
    (1, "full", 2, [-6.184, *pair(-1.408, 0.778)], 1e-3),
    (1, "covariance", 1, [-4.383, *pair(-0.809, 0.509)], 1e-3),
    (2, "full", 1, [*pair(-1.2407, 2.4847), -0.5186], 1e-4),
    (2, "full", 8, [-17.53, *pair(-3.234, 2.035)], [1e-2, 1e-3, 1e-3]),
    (2, "covariance", 1, [-5.494, *pair(-0.753, 0.402)], 1e-3),
    (3, "full", 1, [-0.366, *pair(0.350, 3.286)], 1e-3),
    (3, "full", 18, [-34.65, *pair(-5.17, 3.26)], 1e-2),
    (3, "covariance", 1, [-7.28, *pair(-0.695, 0.258)], [1e-2, 1e-3, 1e-3]),
    (8, "full", 1, [-0.15, 0.60, 45.3], [1e-2, 1e-2, 1e-1]),
    (8, "full", 128, [-209.8, *pair(-15.12, 9.15)], [1e-1, 1e-2, 1e-2]),
    (8, "covariance", 1, [-17.08, -0.916, -0.256], [1e-2, 1e-3, 1e-3]),
]


@pytest.mark.parametrize(("num_dims", "gradient", "critic_rate", "expected", "last_digit"), STATED)
def test_one_scale_in_many_dimensions(num_dims, gradient, critic_rate, expected, last_digit):
    game, optimum = scale_game(num_dims), scale_optimum(num_dims)
    found = flow_jacobian(game, JENSEN_SHANNON, optimum, gradient, critic_rate)
    stated = stated_jacobian(game, optimum, gradient, critic_rate)
    np.testing.assert_allclose(found, stated, rtol=1e-7, atol=1e-7)
    eigenvalues = np.sort_complex(np.linalg.eigvals(found))
    assert np.all(np.abs(eigenvalues - expected) < last_digit)


@pytest.mark.parametrize(("critic_rate", "is_stable"), [(2.9, False), (3.1, True)])
def test_a_critic_with_only_a_bias_must_be_fast(critic_rate, is_stable):
    num_dims = 3  # The border is at d^2 - 2 d.
    game = scale_game(num_dims)
    quadratic = game.critic(scale_optimum(num_dims)[1])
    biased = replace(game, critic=lambda omega: quadratic + omega[0])
    optimum = np.ones(1), np.zeros(1)
    found = flow_jacobian(biased, KL, optimum, "full", critic_rate)
    assert np.linalg.det(found) == pytest.approx(2 * num_dims * critic_rate)
    assert np.trace(found) == pytest.approx(3 - critic_rate)
    assert np.all(np.linalg.eigvals(found).real < 0) == is_stable


def follow(gradient, critic_rate, duration, *, num_dims=3):
    """Furthest and last distance from the optimum on a run that starts nearby."""
    theta, omega = scale_optimum(num_dims)
    optimum = np.concatenate([theta, omega])
    velocity = flow(scale_game(num_dims), JENSEN_SHANNON, gradient, critic_rate, len(theta))
    step_size = 0.02 / max(1, critic_rate)
    parameters = optimum + [0.05, 0.02, -0.02]
    distances = []
    for _ in range(round(duration / step_size)):
        parameters = parameters + step_size * velocity(parameters)
        distances.append(np.max(np.abs(parameters - optimum)))
        if distances[-1] > 1:
            break
    return max(distances), distances[-1]


def test_equal_rates_diverge_in_three_dimensions():
    furthest, _ = follow("full", 1, 30.0)
    assert furthest > 1


# The slowest modes decay at half the stated rates: by e^(-7) and e^(-8).
@pytest.mark.parametrize(
    ("gradient", "critic_rate", "duration"), [("covariance", 1, 20.0), ("full", 18, 3.0)]
)
def test_two_cures_in_three_dimensions(gradient, critic_rate, duration):
    furthest, last = follow(gradient, critic_rate, duration)
    assert furthest < 0.1
    assert last < 1e-4
