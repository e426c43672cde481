"""Toys in the plane: the energies that are trained on them, and grids that normalize these."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pyro_ebm.datasets import toy

Density = Callable[[np.ndarray], np.ndarray]
"""Log-densities ``(N,)`` of points ``(N, 2)``, up to a constant."""


def batches(name: str, num_steps: int, batch_size: int, seed: int) -> np.ndarray:
    """Draw fresh points for every step, shape ``(num_steps, batch_size, 2)``."""
    points = toy(name).sample(num_steps * batch_size, seed=seed)
    return points.reshape(num_steps, batch_size, 2).astype(np.float32)


def density(host: Any, energy: Any, base_scale: float) -> Any:
    """Energy-based distribution over a wide normal."""
    return host.ebm.EnergyBased(energy, host.normal(2, scale=base_scale))


def model(host: Any, base_scale: float) -> Callable[..., None]:
    """Model of points from the network called ``energy``."""

    def model(nets: Any, x: Any) -> None:
        with host.plate("data", len(x)):
            host.sample("x", density(host, nets["energy"], base_scale), obs=x)

    return model


def log_density(host: Any, energy: Any, base_scale: float) -> Density:
    def function(energy: Any, x: Any) -> Any:
        return density(host, energy, base_scale).log_prob(x)

    def of_points(points: np.ndarray) -> np.ndarray:
        return host.evaluate(function, energy, points.astype(np.float32)).astype(np.float64)

    return of_points


def grid(limit: float = 6.0, size: int = 600) -> tuple[np.ndarray, float]:
    """Midpoints of square cells, shape ``(size**2, 2)``, and the logarithm of a cell's area."""
    edge = 2 * limit / size
    line = -limit + edge * (np.arange(size) + 0.5)
    x, y = np.meshgrid(line, line)
    return np.stack([x.ravel(), y.ravel()], axis=1), 2 * math.log(edge)


def normalize(log_density: Density, limit: float = 6.0, size: int = 600) -> tuple[float, float]:
    """Integrate a density over a grid.

    Args:
        log_density: Log-density of points.
        limit: Half the width of the grid.
        size: Cells along each axis.

    Returns:
        Logarithm of the integral, and the share of it in the grid's outermost half unit.
    """
    points, log_area = grid(limit, size)
    values = log_density(points)
    log_normalizer = np.logaddexp.reduce(values) + log_area
    edge = np.abs(points).max(axis=1) > limit - 0.5
    boundary = np.logaddexp.reduce(values[edge]) + log_area - log_normalizer
    return float(log_normalizer), float(np.exp(boundary))


def in_blocks(log_density: Density, size: int = 12_800) -> Density:
    """Evaluate points in blocks of one shape, with which JAX compiles once."""

    def of_blocks(points: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(points), size):
            block = points[start : start + size]
            padded = np.concatenate([block, np.zeros((size - len(block), 2))])
            yield log_density(padded)[: len(block)]

    return lambda points: np.concatenate(list(of_blocks(points)))
