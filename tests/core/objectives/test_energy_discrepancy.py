import itertools
import math

import numpy as np
import pytest
from scipy import optimize, special
from scipy.linalg import expm

from pyro_ebm.core.objectives.energy_discrepancy import energy_discrepancy

rng = np.random.default_rng(0)


def discrepancy_by_hand(positive, negative, stabilization):
    terms = np.exp(positive - negative).sum(0) + stabilization
    return np.log(terms / len(negative))


@pytest.mark.parametrize("stabilization", [0.0, 0.3, 1.0])
def test_energy_discrepancy_is_its_formula(stabilization):
    positive, negative = rng.normal(size=5), rng.normal(size=(3, 5))
    expected = discrepancy_by_hand(positive, negative, stabilization)
    result = energy_discrepancy(positive, negative, stabilization)
    np.testing.assert_allclose(result, expected, rtol=1e-13)
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


def population_loss(u, num_samples, stabilization):
    """Expected loss by enumerating the value, its noisy state and every set of negatives."""
    states = range(4)
    weights, columns = [], []
    for x, y, *negatives in itertools.product(states, repeat=2 + num_samples):
        weights.append(P[x] * KERNEL[x, y] * np.prod(KERNEL[y, negatives]))
        columns.append([x, *negatives])
    energies = u[np.array(columns).T]
    return np.dot(weights, energy_discrepancy(energies[0], energies[1:], stabilization))


@pytest.mark.parametrize(
    ("num_samples", "stabilization", "minimum", "fitted"),
    [
        (1, 1.0, 0.66849133419, (0.4, 0.3, 0.2, 0.1)),
        (2, 1.0, 0.37259150777, (0.4, 0.3, 0.2, 0.1)),
        (3, 1.0, 0.25069676975, (0.4, 0.3, 0.2, 0.1)),
        (1, 0.25, 0.13765341554, (0.55682, 0.28813, 0.12386, 0.03119)),
        (2, 0.25, 0.05253325608, (0.47358, 0.30389, 0.16353, 0.05899)),
        (1, 4.0, 1.60317620809, (0.34481, 0.28792, 0.22312, 0.14415)),
    ],
)
def test_discrete_population_minimum(num_samples, stabilization, minimum, fitted):
    fit = optimize.minimize(population_loss, np.zeros(4), (num_samples, stabilization), tol=1e-10)
    assert fit.fun == pytest.approx(minimum, abs=1e-8)
    np.testing.assert_allclose(special.softmax(-fit.x), fitted, atol=1e-4)
