"""Toy distributions with exact log-densities.

The two-dimensional toys have the constants with which energy-based models are usually compared:
FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models (Grathwohl et al.,
2019), https://arxiv.org/abs/1810.01367; Energy Discrepancies: A Score-Independent Loss for
Energy-Based Models (Schröder et al., 2023), https://arxiv.org/abs/2307.06431.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.random import Generator

Array = np.ndarray

# The published mixtures divide by this number, not by the square root of two.
_SHRINK = 1.414


@dataclass(frozen=True, kw_only=True)
class Toy:
    """Distribution over vectors with exact, reproducible draws.

    Attributes:
        name: Name of the distribution.
        draw: Maps a generator and a number of points `n` to points, shape `(n, dimension)`.
        density: Exact log-density of points of shape `(*batch, dimension)`, shape `(*batch)`, in
            nats, by a closed form or a quadrature.
        dimension: Length of one point.
    """

    name: str
    draw: Callable[[Generator, int], Array]
    density: Callable[[Array], Array]
    dimension: int = 2

    def sample(self, num_samples: int, seed: int = 0) -> Array:
        """Draw points, float64 of shape `(num_samples, dimension)`, determined by the seed."""
        if num_samples < 0:
            raise ValueError(f"Expected `num_samples` to be at least 0, got {num_samples}.")
        return self.draw(np.random.default_rng(seed), num_samples)

    def log_density(self, x: Array) -> Array:
        """Evaluate the normalized log-density of points, shape `(*batch, dimension)`, in nats."""
        x = np.asarray(x, dtype=np.float64)
        if x.shape[-1:] != (self.dimension,):
            raise ValueError(f"Expected `x` of shape (*batch, {self.dimension}), got {x.shape}.")
        return self.density(x)


def _mixture(name: str, centers: Array, std: float, weights: Array | None = None) -> Toy:
    """Return a mixture of Gaussians with one standard deviation, centers `(K, dimension)`."""
    num_components, dimension = centers.shape
    weights = np.full(num_components, 1 / num_components) if weights is None else weights

    def draw(rng: Generator, n: int) -> Array:
        component = rng.choice(num_components, size=n, p=weights)
        return centers[component] + std * rng.standard_normal((n, dimension))

    def density(x: Array) -> Array:
        squares = np.sum((x[..., None, :] - centers) ** 2, axis=-1)
        with np.errstate(divide="ignore"):
            terms = np.log(weights) - 0.5 * squares / std**2
        log_scale = 0.5 * dimension * np.log(2 * np.pi * std**2)
        return np.logaddexp.reduce(terms, axis=-1) - log_scale

    return Toy(name=name, draw=draw, density=density, dimension=dimension)


def bimodal(rho: float = 0.5) -> Toy:
    r"""Return two well-separated Gaussians on the line, points of shape `(n, 1)`.

    .. math:: \rho\, N(-5, 1) + (1 - \rho)\, N(5, 1)

    Args:
        rho: Weight of the left mode, between 0 and 1.

    References:
        Energy Discrepancies (Schröder et al., 2023), https://arxiv.org/abs/2307.06431
    """
    if not 0 <= rho <= 1:
        raise ValueError(f"Expected `rho` to be between 0 and 1, got {rho}.")
    return _mixture("bimodal", np.array([[-5.0], [5.0]]), 1.0, np.array([rho, 1 - rho]))


def _on_circle(angle: Array) -> Array:
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _noise(rng: Generator, n: int, std: float) -> Array:
    return std * rng.standard_normal((n, 2))


def _near_curves(curves: Array, std: float) -> Callable[[Array], Array]:
    """Return the log-density of points of curves plus noise, of nodes `(num_nodes, 2)`.

    All nodes have the same weight: the midpoint rule, for curves at uniform speed in their draw.
    """

    def density(x: Array) -> Array:
        rows, logs = x.reshape(-1, 2), []
        for block in np.array_split(rows, len(rows) // 4096 + 1):
            exponents = block @ (curves / std**2).T
            exponents -= 0.5 * (np.sum(curves**2, axis=-1) / std**2)
            largest = exponents.max(axis=-1, keepdims=True)
            mean = np.exp(exponents - largest).mean(axis=-1)
            logs.append(largest[:, 0] + np.log(mean) - 0.5 * np.sum(block**2, axis=-1) / std**2)
        return np.concatenate(logs).reshape(x.shape[:-1]) - np.log(2 * np.pi * std**2)

    return density


def _middles(num_nodes: int) -> Array:
    """Return the middles of as many parts of the unit interval."""
    return (np.arange(num_nodes) + 0.5) / num_nodes


def _draw_checkerboard(rng: Generator, n: int) -> Array:
    column = rng.integers(-2, 2, size=n)
    row = column % 2 + 2 * rng.integers(-1, 1, size=n)
    return 2 * (np.stack([column, row], axis=-1) + rng.random((n, 2)))


def _checkerboard_density(x: Array) -> Array:
    """Evaluate the uniform density on eight squares of side 2 in the square from -4 to 4."""
    dark = np.sum(np.floor(x / 2), axis=-1) % 2 == 0
    inside = np.all((x >= -4) & (x < 4), axis=-1)
    return np.where(dark & inside, -np.log(32.0), -np.inf)


def _draw_two_spirals(rng: Generator, n: int) -> Array:
    angle = 3 * np.pi * np.sqrt(rng.random(n))
    arm = angle[:, None] * _on_circle(np.pi - angle) + 0.5 * rng.random((n, 2))
    return rng.choice([-1, 1], size=(n, 1)) * arm / 3 + _noise(rng, n, 0.1)


def _two_spirals_density(x: Array) -> Array:
    """Integrate over the angle; minus infinity four units away."""
    rows = x.reshape(-1, 2)
    both = [_arm_density(sign * rows) for sign in (-1, 1)]
    with np.errstate(divide="ignore"):
        return np.log(np.mean(both, axis=0)).reshape(x.shape[:-1])


def _arm_density(rows: Array) -> Array:
    """Evaluate the density of an arm: coordinates are independent, given the angle."""
    (arm, weights), blur = _arm_quadrature(), _blur_density()
    totals = []
    for block in np.array_split(rows, len(rows) // 4096 + 1):
        x, y = (np.interp(np.abs(block[:, [i]] - arm[:, i]), *blur) for i in (0, 1))
        totals.append(x * y @ weights)
    return np.concatenate(totals)


@cache
def _arm_quadrature(num_angles: int = 256) -> tuple[Array, Array]:
    """Return points on the arm, `(num_angles, 2)`, and weights; the squared angle is uniform."""
    nodes, weights = np.polynomial.legendre.leggauss(num_angles)
    angle = 1.5 * np.pi * (1 + nodes)
    return (angle[:, None] * _on_circle(np.pi - angle) + 0.25) / 3, weights * angle / (3 * np.pi)


@cache
def _blur_density() -> tuple[Array, Array]:
    """Tabulate the density of a uniform of width 1/6 plus noise by the distance from its middle."""
    away = np.linspace(0.0, 4.0, 40_001)
    ends = ((away + shift) / (0.1 * math.sqrt(2)) for shift in (-1 / 12, 1 / 12))
    near, far = (np.array([math.erfc(z) for z in end]) for end in ends)
    return away, 3 * (near - far)


def _draw_pinwheel(rng: Generator, n: int) -> Array:
    """Draw the five blades of Composing graphical models with neural networks (Johnson, 2016)."""
    radial = 1 + 0.3 * rng.standard_normal(n)
    tangential = 0.1 * rng.standard_normal(n)
    angle = 2 * np.pi * rng.integers(5, size=n) / 5 + 0.25 * np.exp(radial)
    # The blade (radial, tangential), rotated by an angle that grows with the radius.
    turned = (radial + 1j * tangential) * np.exp(-1j * angle)
    return 2 * np.stack([turned.real, turned.imag], axis=-1)


def _pinwheel_density(x: Array) -> Array:
    """Change variables at each radius of each blade that leads to a point, found by bisection."""
    rows = x.reshape(-1, 2) @ np.array([0.5, 0.5j])
    logs = [_blades_density(block) for block in np.array_split(rows, len(rows) // 256 + 1)]
    return np.concatenate(logs).reshape(x.shape[:-1])


def _blades_density(points: Array) -> Array:
    radii = np.linspace(-1.4, 3.4, 481)
    starts = 2 * np.pi * np.arange(5)[:, None, None] / 5

    def unturned(start: Array, point: Array, radial: Array) -> Array:
        return point * np.exp(1j * (start + 0.25 * np.exp(radial)))

    excess = unturned(starts, points[:, None], radii).real - radii
    blade, row, cell = np.nonzero(np.diff(excess > 0, axis=-1))
    start, point = starts[blade, 0, 0], points[row]
    low, high = radii[cell], radii[cell + 1]
    rises = excess[blade, row, cell + 1] > 0
    for _ in range(40):
        radial = (low + high) / 2
        is_low = (unturned(start, point, radial).real > radial) != rises
        low, high = np.where(is_low, radial, low), np.where(is_low, high, radial)
    tangential = unturned(start, point, radial).imag
    squares = ((radial - 1) / 0.3) ** 2 + (tangential / 0.1) ** 2
    volume = 4 * 5 * (2 * np.pi * 0.3 * 0.1) * np.abs(1 + 0.25 * np.exp(radial) * tangential)
    density = np.bincount(row, np.exp(-0.5 * squares) / volume, minlength=len(points))
    with np.errstate(divide="ignore"):
        return np.log(density)


def _draw_rings(rng: Generator, n: int) -> Array:
    radius = 0.75 * rng.integers(1, 5, size=(n, 1))
    return radius * _on_circle(2 * np.pi * rng.random(n)) + _noise(rng, n, 0.08)


def _draw_circles(rng: Generator, n: int) -> Array:
    radius = 3.0 * np.where(np.arange(n) < n // 2, 1.0, 0.5)
    angle = rng.uniform(0, 2 * np.pi, n)
    return rng.permutation(radius[:, None] * _on_circle(angle) + _noise(rng, n, 0.24))


def _draw_two_moons(rng: Generator, n: int) -> Array:
    moon = _on_circle(np.pi * rng.random(n))
    lower = rng.integers(2, size=(n, 1))
    moon = np.where(lower, np.array([1.0, 0.5]) - moon, moon)
    return 2 * (moon + _noise(rng, n, 0.1)) - np.array([1.0, 0.2])


_ALL_AROUND = _on_circle(2 * np.pi * _middles(512))
_MOON = _on_circle(np.pi * _middles(512))
_ROLL_ANGLES = 1.5 * np.pi * (1 + 2 * _middles(2048))
_CIRCLES = np.concatenate([1.5 * _ALL_AROUND, 3.0 * _ALL_AROUND])
_RINGS = np.concatenate([0.75 * k * _ALL_AROUND for k in range(1, 5)])
_MOONS = 2 * np.concatenate([_MOON, np.array([1.0, 0.5]) - _MOON]) - np.array([1.0, 0.2])
_ROLL = _ROLL_ANGLES[:, None] * _on_circle(_ROLL_ANGLES) / 5


def _draw_swiss_roll(rng: Generator, n: int) -> Array:
    angle = 1.5 * np.pi * (1 + 2 * rng.random(n))
    return (angle[:, None] * _on_circle(angle) + _noise(rng, n, 1.0)) / 5


_GRID = np.stack(np.meshgrid(*2 * [np.arange(-4.0, 5.0, 2.0)], indexing="ij"), axis=-1)
_COMPASS = 4 * _on_circle(2 * np.pi * np.arange(8) / 8)

TOYS: Mapping[str, Toy] = {
    toy.name: toy
    for toy in (
        _mixture("25_gaussians", _GRID.reshape(25, 2) / _SHRINK, 0.2 / _SHRINK),
        _mixture("8_gaussians", _COMPASS / _SHRINK, 0.5 / _SHRINK),
        Toy(name="circles", draw=_draw_circles, density=_near_curves(_CIRCLES, 0.24)),
        Toy(name="checkerboard", draw=_draw_checkerboard, density=_checkerboard_density),
        Toy(name="pinwheel", draw=_draw_pinwheel, density=_pinwheel_density),
        Toy(name="rings", draw=_draw_rings, density=_near_curves(_RINGS, 0.08)),
        Toy(name="swiss_roll", draw=_draw_swiss_roll, density=_near_curves(_ROLL, 0.2)),
        Toy(name="two_moons", draw=_draw_two_moons, density=_near_curves(_MOONS, 0.2)),
        Toy(name="two_spirals", draw=_draw_two_spirals, density=_two_spirals_density),
    )
}
"""Two-dimensional toys by name."""


def toy(name: str) -> Toy:
    """Return the two-dimensional toy of a name in `TOYS`.

    Example:
        >>> toy("25_gaussians").sample(1000, seed=0).shape
        (1000, 2)
    """
    if name not in TOYS:
        raise ValueError(f"Expected `name` to be one of {', '.join(TOYS)}, got {name!r}.")
    return TOYS[name]
