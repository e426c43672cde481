"""Rings of points with a group and a color: mixed data whose density is exact."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pyro_ebm.core.checks import check_positive
from pyro_ebm.core.columns import Column, Columns

Array = np.ndarray

_NUM_GROUPS, _NUM_COLORS, _NUM_SECTORS = 4, 16, 8
_RADIUS = 1.5
# Gauss-Legendre nodes on the part of a sector that a point may come from, and how many standard
# deviations far that reaches.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(60)
_REACH = 10.0


@dataclass(frozen=True)
class ColoredRings:
    r"""Points on four rings; the color goes round with the angle, from another start on each ring.

    The group :math:`g` is one of 0 to 3, the angle :math:`\theta` uniform, the point
    :math:`1.5\, (g + 1)\, (\cos\theta, \sin\theta)` plus noise, and the color
    :math:`\lfloor 8 \theta / 2 \pi \rfloor + 4 g` modulo 16. A value is a row of two coordinates,
    group and color.

    Args:
        noise: Standard deviation of the noise of each coordinate.

    References:
        | Energy-based modelling for discrete and mixed data via heat equations on structured spaces
          (Schröder et al., 2024), https://arxiv.org/abs/2412.01019

    Example:
        >>> draws = ColoredRings(noise=0.1).sample(5)
        >>> draws.shape, ColoredRings(noise=0.1).log_density(draws).shape
        ((5, 4), (5,))
    """

    noise: float = 0.015
    columns: ClassVar[Columns] = (
        *(Column.numeric("x"), Column.numeric("y")),
        *(Column.nominal(_NUM_GROUPS, "group"), Column.cyclic(_NUM_COLORS, "color")),
    )

    def __post_init__(self) -> None:
        check_positive("noise", self.noise)

    def sample(self, num_samples: int, seed: int = 0) -> Array:
        """Draw rows, float64 of shape `(num_samples, 4)`, determined by the seed."""
        rng = np.random.default_rng(seed)
        group = rng.integers(_NUM_GROUPS, size=num_samples)
        angle = rng.uniform(0.0, 2 * math.pi, num_samples)
        point = _RADIUS * (group + 1) * np.stack([np.cos(angle), np.sin(angle)])
        point = point + self.noise * rng.normal(size=point.shape)
        sector = np.floor(_NUM_SECTORS * angle / (2 * math.pi))
        return np.stack([*point, group, (sector + 4 * group) % _NUM_COLORS], axis=-1)

    def log_density(self, rows: Array) -> Array:
        """Evaluate the normalized log-density of rows, shape `(*batch, 4)`, in nats."""
        x, y, group, color = np.moveaxis(np.asarray(rows, dtype=np.float64), -1, 0)
        sector = (color - 4 * group) % _NUM_COLORS
        center = 2 * math.pi * (sector + 0.5) / _NUM_SECTORS
        ring, radius = _RADIUS * (group + 1), np.hypot(x, y)
        # Points of the ring are at a squared distance of (r - R)^2 + 2 r R (1 - cos t).
        log_integral = self._log_integral(radius * ring, np.arctan2(y, x) - center)
        distance = ((radius - ring) / self.noise) ** 2 / 2
        constant = math.log(2 * math.pi * _NUM_GROUPS) + math.log(2 * math.pi * self.noise**2)
        log_density = log_integral - distance - constant
        return np.where(sector < _NUM_SECTORS, log_density, -np.inf)

    def color_probabilities(self, rows: Array) -> Array:
        """Compute the probability of each color given the other columns, shape `(*batch, 16)`."""
        others = np.broadcast_to(rows[..., None, :], (*rows.shape[:-1], _NUM_COLORS, 4)).copy()
        others[..., 3] = np.arange(_NUM_COLORS)
        log_densities = self.log_density(others)
        log_densities -= log_densities.max(axis=-1, keepdims=True)
        weights = np.exp(log_densities)
        return weights / weights.sum(axis=-1, keepdims=True)

    def _log_integral(self, product: Array, offset: Array) -> Array:
        r"""Integrate :math:`e^{-r R (1 - \cos(t - d)) / s^2}` over a sector."""
        half = math.pi / _NUM_SECTORS
        offset = (offset + math.pi) % (2 * math.pi) - math.pi
        reach = _REACH * self.noise / np.sqrt(np.maximum(product, 1e-12))
        # The nearest point of the sector in any case.
        nearest = np.clip(offset, -half, half)
        low, high = np.maximum(-half, nearest - reach), np.minimum(half, nearest + reach)
        t = (low + high)[..., None] / 2 + (high - low)[..., None] / 2 * _NODES
        exponents = -product[..., None] * (1 - np.cos(t - offset[..., None])) / self.noise**2
        highest = exponents.max(axis=-1)
        total = (np.exp(exponents - highest[..., None]) * _WEIGHTS).sum(-1) * (high - low) / 2
        return highest + np.log(total)
