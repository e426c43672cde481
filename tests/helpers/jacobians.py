"""Generators whose Jacobians are known, and numbers of the methods page for them."""

import math

import numpy as np

# Matrix of a linear generator -> its entropy, and with every singular value the smallest one (T1).
SQUARE = np.random.Generator(np.random.PCG64(0)).normal(size=(4, 4))
SMALL = np.array([[2.0, 1.0], [0.0, 0.5]])
ENTROPIES = [(SQUARE, 6.309556, 1.096360), (SMALL, 2.837877, 1.218081)]

# Of `curved`: entropy, and how much less it is with every singular value the smallest one (T8).
CURVED_ENTROPY, CURVED_DEFICIT = 3.118141, 1.048095 - 0.525291

# LOBPCG steps -> half of the log-determinant, as if all singular values were the one found, for
# `spread(784, 128, 100)`: means over ten draws; and the truth with the bound (T12).
SPREAD_ESTIMATES = {0: -136.8, 1: -213.5, 2: -257.6, 5: -330.9, 20: -458.2, 100: -558.7}
SPREAD_TRUTH, SPREAD_BOUND = -294.7, -589.5


def normal_entropy(num_dims):
    """Of a standard normal."""
    return 0.5 * num_dims * (1 + math.log(2 * math.pi))


def spread(num_data, num_latent, condition, seed=0):
    """A matrix with singular values from 1 to 1 / condition, evenly in their logarithms."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.normal(size=(num_data, num_latent)))[0]
    right = np.linalg.qr(rng.normal(size=(num_latent, num_latent)))[0]
    return left * np.logspace(0, -math.log10(condition), num_latent) @ right


def curved(xp, z):
    """From the plane to a surface in space."""
    first, second = z[:, 0], z[:, 1]
    rows = first + 0.3 * xp.tanh(second), second + 0.2 * first**2, xp.sin(first + second)
    return xp.stack(rows, -1)


def normal_grid(num_nodes=100):
    """Nodes and weights of a quadrature over the standard normal in the plane."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    grid = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    masses = np.outer(weights, weights).reshape(-1)
    return grid, masses / masses.sum()
