"""Energies with known normalizing constants, written with the host's arithmetic.

quartic    E(x) = x^4 / 4, base N(0, 1)
network    E(x) = v . tanh(W x + b) with random weights, in two dimensions, base N(0, 3^2)
mixture    three normals of scale 1 times e^5, base N(0, 3^2)
"""

import math

import numpy as np
from array_api_compat import array_namespace

BASE_SCALE = 3.0
WEIGHTS, RADIUS, LOG_Z_MIXTURE = np.array([0.2, 0.3, 0.5]), 3.0, 5.0
_rng = np.random.default_rng(3)
W, B, V = (_rng.normal(size=shape) for shape in ((32, 2), (32,), (32,)))


def quartic(x):
    return x**4 / 4


def network(w, b, v, x):
    return array_namespace(x).tanh(x @ w.T + b) @ v


def mixture(center, offset, x):
    """Minus log sum_j exp(offset_j - |x - c_j|^2 / 2) - |x|^2 / (2 s^2)."""
    xp = array_namespace(x)
    exponents = offset - 0.5 * xp.sum((x[:, None] - center) ** 2, axis=-1)
    top = xp.max(exponents, axis=-1)
    log_sum = top + xp.log(xp.sum(xp.exp(exponents - top[:, None]), axis=-1))
    return -log_sum - xp.sum(x**2, axis=-1) / (2 * BASE_SCALE**2)


def centers(num_dims):
    """Equally far from each other and from zero, in a plane; shape ``(3, num_dims)``."""
    angles = 2 * math.pi * np.arange(3) / 3
    result = np.zeros((3, num_dims))
    result[:, 0], result[:, 1] = RADIUS * np.cos(angles), RADIUS * np.sin(angles)
    return result


def offsets(num_dims):
    return np.log(WEIGHTS) + LOG_Z_MIXTURE + num_dims * math.log(BASE_SCALE)


def exact_draws(num_draws, num_dims, seed):
    """From the mixture, shape ``(num_draws, num_dims)``."""
    rng = np.random.default_rng(seed)
    which = rng.choice(3, size=num_draws, p=WEIGHTS)
    return centers(num_dims)[which] + rng.normal(size=(num_draws, num_dims))


def _log_integral(log_density, x, num_dims):
    return float(np.log(np.exp(log_density).sum()) + num_dims * math.log(x[1] - x[0]))


# The truth, by sums over fine grids.
_x = np.linspace(-20, 20, 801)
_points = np.stack(np.meshgrid(_x, _x), axis=-1)
_log_base = -(_points**2).sum(-1) / (2 * BASE_SCALE**2) - math.log(2 * math.pi * BASE_SCALE**2)
LOG_Z_QUARTIC = _log_integral(-(_x**4) / 4 - _x**2 / 2 - 0.5 * math.log(2 * math.pi), _x, 1)
LOG_Z_NETWORK = _log_integral(_log_base - np.tanh(_points @ W.T + B) @ V, _x, 2)


def contains(result, truth):
    """Return whether a truth is in a bracket with four standard errors a side; it has two."""
    slack = 2 * result.standard_error
    return bool(((result.lower - slack < truth) & (truth < result.upper + slack)).all())
