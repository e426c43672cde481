"""25 Gaussians, the authors' test of energy discrepancy; what both hosts share.

Schroder et al. (2023): MLP 2-128-128-128-128-1 with softplus, Adam 1e-3, fresh batches of 128,
variance 1, 4 negatives, exponential moving average .999 of the weights. Read off their plot, the
mean squared error of the log-density is about .05 after 10,000 steps and .02 from 20,000 on; they
normalise on data, which overlooks mass between the modes. Here the density is normalised on a
grid, and the learning rate falls to zero along a half cosine.
"""

import math

import numpy as np

from pyro_ebm.datasets import toy

TOY = toy("25_gaussians")
WIDTH, DEPTH = 128, 4
VARIANCE, NUM_NEGATIVES = 1.0, 4
BATCH_SIZE, LEARNING_RATE, NUM_STEPS, DECAY = 128, 1e-3, 50_000, 0.999
BASE_SCALE = 2.0  # standard deviation of the normal base: it only shapes the far tails
SEEDS = (0, 1, 2)
NUM_TEST = 5_000


def grid(limit: float = 6.0, size: int = 600) -> tuple[np.ndarray, float]:
    """Midpoints of square cells, shape ``(size**2, 2)``, and the logarithm of a cell's area."""
    edge = 2 * limit / size
    line = -limit + edge * (np.arange(size) + 0.5)
    x, y = np.meshgrid(line, line)
    return np.stack([x.ravel(), y.ravel()], axis=1), 2 * math.log(edge)


def normalize(log_density, limit: float = 6.0, size: int = 600) -> tuple[float, float]:
    """Logarithm of the integral of a density over a grid, and the share of it near the edge.

    Args:
        log_density: Maps points ``(N, 2)`` to ``(N,)``, NumPy arrays.
        limit: Of the grid; its outermost half unit is near the edge.
        size: Of the grid.
    """
    points, log_area = grid(limit, size)
    values = log_density(points)
    log_normalizer = np.logaddexp.reduce(values) + log_area
    edge = np.abs(points).max(axis=1) > limit - 0.5
    boundary = np.logaddexp.reduce(values[edge]) + log_area - log_normalizer
    return float(log_normalizer), float(np.exp(boundary))


def mean_squared_error(log_density, seed: int) -> dict[str, float]:
    """Error of an unnormalised log-density on fresh points of the true density.

    Args:
        log_density: Maps points ``(N, 2)`` to ``(N,)``, NumPy arrays.
        seed: Of the test points.
    """
    log_normalizer, boundary_mass = normalize(log_density)
    test = TOY.sample(NUM_TEST, seed=10_000 + seed)
    error = log_density(test) - log_normalizer - TOY.log_density(test)
    return {
        "mse": float(np.mean(error**2)),
        "standard error": float(np.std(error**2) / math.sqrt(NUM_TEST)),
        "mean error": float(np.mean(error)),
        "boundary mass": boundary_mass,
    }
