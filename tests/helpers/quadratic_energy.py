"""Score matching of a quadratic energy, in closed form; NumPy.

U(x) = a / 2 x . A x
"""

import numpy as np

SHAPES = [(1,), (2,), (16,), (1, 2, 2)]
AMPLITUDE, VARIANCE = 1.3, 0.2


def matrix(num_coordinates):
    """A, symmetric and not diagonal."""
    root = np.random.default_rng(num_coordinates).normal(size=(num_coordinates, num_coordinates))
    return np.eye(num_coordinates) + root @ root.T / num_coordinates


def data(shape):
    return np.random.default_rng(5).normal(size=(3, *shape))


def exact(x, a=AMPLITUDE):
    """Losses, and their derivatives in the amplitude."""
    A, squares = _parts(x)
    return a**2 / 2 * squares - a * np.trace(A), a * squares - np.trace(A)


def sliced_error(num_coordinates, num_projections):
    """Standard deviation, from random signs, of the derivative in the amplitude."""
    A = matrix(num_coordinates)
    return np.sqrt(2 * (np.sum(A**2) - np.sum(np.diag(A) ** 2)) / num_projections)


def denoising(x, a=AMPLITUDE, t=VARIANCE):
    """Means over the noise of the losses and of their derivatives in the amplitude."""
    A, squares = _parts(x)
    excess = t * a * A - np.eye(len(A))
    losses = t * a**2 / 2 * squares + np.sum(excess**2) / 2
    return losses, t * a * squares + t * np.trace(A @ excess)


def _parts(x):
    x = x.reshape(len(x), -1)
    A = matrix(x.shape[1])
    return A, ((x @ A) ** 2).sum(-1)
