import itertools
import math

import array_api_strict
import numpy as np
import pytest
from scipy import optimize, special
from scipy.linalg import expm

from pyro_ebm.core.evidence.weights import summarize_log_weights
from pyro_ebm.core.numerics import log_mean_exp, logsumexp
from pyro_ebm.core.objectives.energy_discrepancy import energy_discrepancy

rng = np.random.default_rng(0)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_logsumexp(axis):
    x = 500.0 * rng.normal(size=(4, 5, 6))
    np.testing.assert_allclose(logsumexp(x, axis), special.logsumexp(x, axis), rtol=1e-14)
    expected = special.logsumexp(x, axis) - math.log(x.shape[axis])
    np.testing.assert_allclose(log_mean_exp(x, axis), expected, rtol=1e-14)


def test_logsumexp_of_infinities():
    with np.errstate(divide="ignore"):
        assert logsumexp(np.array([-np.inf, -np.inf])) == -np.inf
    assert logsumexp(np.array([-np.inf, 2.0])) == 2.0
    assert logsumexp(np.array([np.inf, 2.0])) == np.inf


def discrepancy_by_hand(positive, negative, stabilization):
    terms = np.exp(positive - negative).sum(0) + stabilization
    return np.log(terms / len(negative))


@pytest.mark.parametrize("stabilization", [0.0, 0.3, 1.0])
def test_energy_discrepancy_is_its_formula(stabilization):
    positive, negative = rng.normal(size=5), rng.normal(size=(3, 5))
    expected = discrepancy_by_hand(positive, negative, stabilization)
    result = energy_discrepancy(positive, negative, stabilization)
    np.testing.assert_allclose(result, expected, rtol=1e-13)
    strict = energy_discrepancy(
        array_api_strict.asarray(positive), array_api_strict.asarray(negative), stabilization
    )
    np.testing.assert_allclose(np.asarray(strict), expected, rtol=1e-13)
    shifted = energy_discrepancy(positive + 7.0, negative + 7.0, stabilization)
    np.testing.assert_allclose(shifted, expected, rtol=1e-13)


def test_energy_discrepancy_of_huge_and_infinite_energies():
    assert energy_discrepancy(np.array([1e4]), np.array([[0.0]]), 1.0) == pytest.approx(1e4)
    assert energy_discrepancy(np.array([0.0]), np.array([[1e4]]), 1.0) == pytest.approx(0.0)
    outside = energy_discrepancy(np.array([0.0]), np.array([[np.inf], [0.0]]), 1.0)
    assert outside == pytest.approx(math.log(2) - math.log(2))


# Path graph of four states, jump rate 1 to each neighbour, time 0.5 (methods page, 5.3).
RATES = np.diag(np.ones(3), 1) + np.diag(np.ones(3), -1)
KERNEL = expm(0.5 * (RATES - np.diag(RATES.sum(1))))
P = np.array([0.4, 0.3, 0.2, 0.1])


def population_loss(u, num_negatives, stabilization):
    """Expected loss by enumerating the value, its noisy state and every set of negatives."""
    states = range(4)
    weights, columns = [], []
    for x, y, *negatives in itertools.product(states, repeat=2 + num_negatives):
        weights.append(P[x] * KERNEL[x, y] * np.prod(KERNEL[y, negatives]))
        columns.append([x, *negatives])
    energies = u[np.array(columns).T]
    return np.dot(weights, energy_discrepancy(energies[0], energies[1:], stabilization))


@pytest.mark.parametrize(
    ("num_negatives", "stabilization", "minimum", "fitted"),
    [
        (1, 1.0, 0.66849133419, (0.4, 0.3, 0.2, 0.1)),
        (2, 1.0, 0.37259150777, (0.4, 0.3, 0.2, 0.1)),
        (3, 1.0, 0.25069676975, (0.4, 0.3, 0.2, 0.1)),
        (1, 0.25, 0.13765341554, (0.55682, 0.28813, 0.12386, 0.03119)),
        (2, 0.25, 0.05253325608, (0.47358, 0.30389, 0.16353, 0.05899)),
        (1, 4.0, 1.60317620809, (0.34481, 0.28792, 0.22312, 0.14415)),
    ],
)
def test_discrete_population_minimum(num_negatives, stabilization, minimum, fitted):
    fit = optimize.minimize(population_loss, np.zeros(4), (num_negatives, stabilization), tol=1e-10)
    assert fit.fun == pytest.approx(minimum, abs=1e-8)
    np.testing.assert_allclose(special.softmax(-fit.x), fitted, atol=1e-4)


def test_summary_of_weights():
    weights = rng.gamma(2.0, size=(1000, 2))
    result = summarize_log_weights(np.log(weights))
    mean, spread = weights.mean(0), weights.std(0)
    np.testing.assert_allclose(result.estimate, np.log(mean))
    np.testing.assert_allclose(result.standard_error, spread / mean / math.sqrt(1000))
    np.testing.assert_allclose(
        result.effective_sample_size, weights.sum(0) ** 2 / (weights**2).sum(0)
    )
    equal = summarize_log_weights(np.full((7,), -1e4))
    assert (equal.estimate, equal.standard_error) == (-1e4, 0.0)
    assert equal.effective_sample_size == pytest.approx(7)
