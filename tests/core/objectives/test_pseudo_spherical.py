import math

import numpy as np
import pytest
from helpers.oracles import PSEUDO_SPHERICAL_VALUES, pseudo_spherical_gradient
from scipy.special import logsumexp

from pyro_ebm.core.objectives.contrastive_divergence import contrastive_divergence
from pyro_ebm.core.objectives.maximum_likelihood import maximum_likelihood
from pyro_ebm.core.objectives.pseudo_spherical import pseudo_spherical

rng = np.random.default_rng(0)
POSITIVE, NEGATIVE = rng.normal(size=(3, 4)), rng.normal(size=5)
GRID, STEP = np.linspace(-14, 14, 60_001, retstep=True)
LOG_DATA = -0.5 * (GRID + 0.3) ** 2 - 0.5 * math.log(2 * math.pi)
MU, SCALE = 0.4, 1.2
GAMMAS = [-0.5, 1e-4, 0.5, 1.0, 2.0]


def energy(mu, log_scale):
    """A Gaussian one with a bend, so that it is no member of a family that hides errors."""
    return 0.5 * ((GRID - mu) / math.exp(log_scale)) ** 2 + 0.1 * np.sin(GRID - mu)


def objective(gamma, mu, log_scale):
    """The pseudo-spherical one, by quadrature."""
    u = energy(mu, log_scale)
    score = logsumexp(LOG_DATA - gamma * u) + math.log(STEP)
    return -score / gamma + (logsumexp(-(gamma + 1) * u) + math.log(STEP)) / (gamma + 1)


def slopes(function, parameters, step=1e-5):
    """Central differences in every parameter."""
    steps = step * np.eye(len(parameters))
    return np.stack(
        [(function(*(parameters + d)) - function(*(parameters - d))) / (2 * step) for d in steps]
    )


def weighted_gradient(gamma, u, gradients):
    """The gradient by the weights, with nodes of the grid in place of draws.

    A node of probability pi counts as if its potential were U - (log pi) / gamma.
    """
    log_model = -u - logsumexp(-u)
    weights = pseudo_spherical(gamma, u - LOG_DATA / gamma, u - log_model / gamma)
    return gradients @ (weights.positive - weights.negative) / len(GRID)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradient_is_that_of_the_objective(gamma):
    parameters = np.array([MU, math.log(SCALE)])
    expected = slopes(lambda *p: objective(gamma, *p), parameters)
    found = weighted_gradient(gamma, energy(*parameters), slopes(energy, parameters))
    # Differences of an objective that divides by a gamma of 1e-4 have few digits left.
    np.testing.assert_allclose(found, expected, atol=1e-8 + 1e-10 / abs(gamma))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradient_for_gaussians(gamma):
    z = (GRID - MU) / SCALE
    gradients = np.stack([-z / SCALE, -(z**2)])
    found = weighted_gradient(gamma, 0.5 * z**2, gradients)
    expected = pseudo_spherical_gradient(gamma, MU, math.log(SCALE))
    np.testing.assert_allclose(found, expected, atol=1e-10)
    if gamma in PSEUDO_SPHERICAL_VALUES:
        assert found[0] == pytest.approx(PSEUDO_SPHERICAL_VALUES[gamma], abs=1e-6)


def test_gamma_zero_is_the_likelihood():
    gradient = pseudo_spherical_gradient(0.0, MU, math.log(SCALE))
    assert gradient[0] == pytest.approx(PSEUDO_SPHERICAL_VALUES[0.0], abs=1e-6)
    assert gradient[1] == pytest.approx(1 - (1 + 0.7**2) / SCALE**2)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_weights_are_their_formula(gamma):
    weights = pseudo_spherical(gamma, POSITIVE, NEGATIVE)
    for found, potential in [(weights.positive, POSITIVE), (weights.negative, NEGATIVE)]:
        assert found.shape == potential.shape
        expected = np.exp(-gamma * potential)
        np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-12)
    ratio = np.exp(-gamma * NEGATIVE).mean() / np.exp(-gamma * POSITIVE).mean()
    assert weights.value == pytest.approx(math.log(ratio) / gamma, abs=1e-11)


def test_constants_of_the_energy_drop_out():
    weights = pseudo_spherical(0.5, POSITIVE, NEGATIVE)
    for found, expected in zip(
        pseudo_spherical(0.5, POSITIVE + 1e4, NEGATIVE + 1e4), weights, strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-10)
    flat = pseudo_spherical(0.5, np.full(3, 1e4), np.full(2, -1e4))
    assert (flat.positive == 1).all()
    assert (flat.negative == 1).all()
    assert flat.value == pytest.approx(2e4)


def test_gamma_near_zero_is_contrastive_divergence():
    weights = pseudo_spherical(1e-7, POSITIVE, NEGATIVE)
    np.testing.assert_allclose(weights.positive, 1, atol=1e-6)
    np.testing.assert_allclose(weights.negative, 1, atol=1e-6)
    expected = contrastive_divergence(POSITIVE, NEGATIVE).mean()
    assert weights.value == pytest.approx(expected, abs=1e-6)


def test_contrastive_divergence_is_its_formula():
    contexts = rng.normal(size=(5, 4))
    found = contrastive_divergence(POSITIVE, contexts)
    np.testing.assert_allclose(found, POSITIVE - contexts.sum(0) / 5, rtol=1e-13)


def test_maximum_likelihood_is_its_formula():
    negative, log_density = rng.normal(size=(2, 6, 4))
    normalizer = np.exp(-negative - log_density).sum(0) / 6
    found = maximum_likelihood(POSITIVE, negative, log_density)
    np.testing.assert_allclose(found, POSITIVE + np.log(normalizer), rtol=1e-13)
    shifted = maximum_likelihood(POSITIVE + 1e4, negative + 1e4, log_density)
    np.testing.assert_allclose(shifted, found, atol=1e-10)
