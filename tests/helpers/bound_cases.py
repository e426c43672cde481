"""Energies with generators, for both hosts, and their bounds by quadrature.

Functions take the array namespace of the host first.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """An energy without base in which log Z is known, and a generator of standard normal values.

    A shape is that of one value.
    """

    energy: Callable
    generator: Callable
    latent_shape: tuple
    event_shape: tuple
    log_normalizer: float
    mean: float
    penalty: float


def normal_nodes(num_nodes, num_dims=0):
    """Nodes and weights that integrate over a standard normal, shape ``(N,)`` or ``(N, d)``."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    weights = weights / weights.sum()
    if not num_dims:
        return nodes, weights
    grid = np.array(list(itertools.product(nodes, repeat=num_dims)))
    return grid, np.prod(list(itertools.product(weights, repeat=num_dims)), axis=1)


def quartic(xp, x):
    return x**2 / 2 + x**4 / 4


def two_modes(xp, x, c=4.0):
    return -xp.logaddexp(-((x + c) ** 2) / 2, -((x - c) ** 2) / 2)


def scaled(a):
    """E = x^2, G = a z."""
    gap = a**2 - 0.5 - 0.5 * math.log(2 * a**2)
    log_normalizer = 0.5 * math.log(math.pi)
    penalty = (1 - 2 * a**2) ** 2 / 2
    return Case(
        lambda xp, x: x**2,
        lambda xp, z: a * z,
        (),
        (),
        log_normalizer,
        log_normalizer - gap,
        penalty,
    )


def missed(c, gap, penalty):
    """Two modes, of which the generator makes one."""
    log_normalizer = math.log(2 * math.sqrt(2 * math.pi))
    return Case(
        lambda xp, x: two_modes(xp, x, c),
        lambda xp, z: z - c,
        (),
        (),
        log_normalizer,
        log_normalizer - gap,
        penalty,
    )


# Numbers of the methods page, T2, T3 and T6.
LOG_NORMALIZER_QUARTIC = 0.66024
SHIFTED = Case(
    quartic, lambda xp, z: 0.6 * z + 0.2, (), (), LOG_NORMALIZER_QUARTIC, 0.58891, 0.12118
)
BENT = Case(
    quartic,
    lambda xp, z: 0.5 * z + 0.3 * xp.tanh(z),
    (),
    (),
    LOG_NORMALIZER_QUARTIC,
    0.65909,
    0.00937,
)
MISSED = {
    1.0: missed(1.0, 0.33683, 0.2248),
    2.0: missed(2.0, 0.63272, 0.13719),
    3.0: missed(3.0, 0.68930, 0.01868),
    4.0: missed(4.0, 0.69305, 0.00079),
}
CASES = {
    "shifted": SHIFTED,
    "bent": BENT,
    **{f"scaled by {a}": scaled(a) for a in (0.5, 1.0, 1.5, math.sqrt(0.5))},
    **{f"missed at {c:g}": case for c, case in MISSED.items()},
}


def stretched(xp, x):
    """Precisions 1 and 100 (T4)."""
    return (x[:, 0] ** 2 + 100 * x[:, 1] ** 2) / 2


LOG_NORMALIZER_STRETCHED = -0.464708
# The best of the smallest singular value is conformal, and so far from the truth.
CONFORMAL, CONFORMAL_GAP = 0.14072, 1.61939


# A line in the plane (T5), narrow enough for its bound to be above log Z.
NARROW = 0.1
LOG_NORMALIZER_NARROW, ON_THE_LINE = -2.767, -1.384


def narrow(xp, x):
    return (x**2).sum(-1) / (2 * NARROW**2)


def line(xp, z):
    return xp.stack([NARROW * z, 0 * z], -1)


# A surface in three dimensions (T8): lower bounds by entropy, and the log of its integral.
SURFACE = {"exact": 1.048095, "smallest_singular_value": 0.525291}
LOG_INTEGRAL_OF_SURFACE = 1.644449


def bumpy(xp, x):
    return (x**2 / 2 + 0.1 * x**4).sum(-1)


def surface(xp, z):
    first, second = z[:, 0], z[:, 1]
    parts = first + 0.3 * xp.tanh(second), second + 0.2 * first**2, xp.sin(first + second)
    return xp.stack(parts, -1)


# Probabilistic PCA (T9), which its posterior as encoder describes exactly.
LOADINGS = np.array([[1, 0], [0, 1], [1, 1], [0.5, -0.5], [0, 2]])
NOISE_SCALE = math.sqrt(0.3)
MARGINAL_FACTOR = np.linalg.cholesky(LOADINGS @ LOADINGS.T + NOISE_SCALE**2 * np.eye(5))
_precision = LOADINGS.T @ LOADINGS / NOISE_SCALE**2 + np.eye(2)
POSTERIOR_COVARIANCE = np.linalg.inv(_precision)
POSTERIOR_FACTOR = np.linalg.cholesky(POSTERIOR_COVARIANCE)
POSTERIOR_MAP = POSTERIOR_COVARIANCE @ LOADINGS.T / NOISE_SCALE**2
ENTROPY, INFORMATION, LESS_INFORMATION = 6.679384, 2.594623, 2.118143
