"""Closed forms that both hosts are tested against, in plain numbers and NumPy."""

import math

import numpy as np


def gaussian_discrepancy(a, sigma2, t, mu=0.0, m=0.0):
    """Energy discrepancy of U = a (x - mu)^2 / 2 on data N(m, sigma2), in one dimension."""
    return (
        0.5 * a * sigma2
        - a * (sigma2 + t) / (2 * (1 + t * a))
        - 0.5 * math.log(1 + t * a)
        + a**2 * t * (m - mu) ** 2 / (2 * (1 + t * a))
    )


def gaussian_discrepancy_gradient(a, sigma2, t, step=1e-5):
    """Its derivative in a, by central differences of the closed form."""
    upper = gaussian_discrepancy(a + step, sigma2, t)
    lower = gaussian_discrepancy(a - step, sigma2, t)
    return (upper - lower) / (2 * step)


# (a, sigma2, t) -> energy discrepancy, m = mu = 0 (methods page, 5.1).
GAUSSIAN_VALUES = {
    (1.0, 1.0, 1.0): -0.3465735902799727,
    (2.0, 1.0, 0.5): -0.0965735902799727,
    (0.5, 2.0, 1.0): -0.2027325540540822,
    (1.0, 1.0, 0.25): -0.1115717756571049,
    (3.0, 0.5, 0.04): -0.0298786283677873,
}

# (stabilization, variance) -> fitted precision of data N(0, 1) with one negative (5.2).
FITTED_PRECISIONS = {(0.1, 1.0): 2.4401, (1.0, 1.0): 1.0, (4.0, 1.0): 0.6574}

# log of the integral of exp(-x^2/2 - x^4/4) / sqrt(2 pi) dx, by quadrature.
_grid = np.linspace(-12, 12, 200001)
LOG_NORMALIZER_QUARTIC = float(
    np.log(
        np.sum(np.exp(-(_grid**2) / 2 - _grid**4 / 4))
        * (_grid[1] - _grid[0])
        / math.sqrt(2 * math.pi)
    )
)

# Variance of that density.
_weights = np.exp(-(_grid**2) / 2 - _grid**4 / 4)
VARIANCE_QUARTIC = float((_weights * _grid**2).sum() / _weights.sum())


def pseudo_spherical_gradient(gamma, mu, log_scale, m=-0.3, sigma2=1.0):
    """Of the pseudo-spherical objective of E = (x - mu)^2 / (2 s^2) on data N(m, sigma2).

    Both the weighted data and the model to the power 1 + gamma are Gaussian. Gamma 0 gives the
    gradient of the negative log-likelihood.

    Returns:
        Derivatives in mu and log s.
    """
    s2 = math.exp(2 * log_scale)
    precision = 1 / sigma2 + gamma / s2
    weighted_mean = (m / sigma2 + gamma * mu / s2) / precision
    square = 1 / precision + (weighted_mean - mu) ** 2
    return (mu - weighted_mean) / s2, 1 / (1 + gamma) - square / s2


# gamma -> derivative in mu at mu = .4, s = 1.2 (methods page of f-EBM, O9); 0 is CD.
PSEUDO_SPHERICAL_VALUES = {0.0: 0.486111, 1e-4: 0.486077, 0.5: 0.360825, 1.0: 0.286885}


def quartic_likelihood(x, weight, loc, log_scale):
    """Mean negative log-likelihood of x for E = weight x^4 / 4 over N(loc, s^2), by quadrature."""

    def potential(x):
        z = (x - loc) / math.exp(log_scale)
        return weight * x**4 / 4 + z**2 / 2 + log_scale + math.log(2 * math.pi) / 2

    z = np.sum(np.exp(-potential(_grid))) * (_grid[1] - _grid[0])
    return float(np.mean(potential(x)) + np.log(z))


def quartic_likelihood_gradient(x, *parameters, step=1e-5):
    """Its derivatives in weight, loc and log_scale, by central differences."""
    steps = step * np.eye(3)
    return [
        (quartic_likelihood(x, *(parameters + d)) - quartic_likelihood(x, *(parameters - d)))
        / (2 * step)
        for d in steps
    ]


def gaussian_log_normalizer(weight, loc, scale):
    """log Z of E = weight x^2 / 2 over N(loc, scale^2)."""
    widening = 1 + weight * scale**2
    return -0.5 * math.log(widening) - 0.5 * weight * loc**2 / widening
