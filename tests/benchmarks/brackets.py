"""Targets with a known normalizing constant, and what is run on them, for both hosts.

quartic    E(x) = x^4 / 4, base N(0, 1)
network    E(x) = v . tanh(W x + b) with random weights, in two dimensions, base N(0, 3^2)
mixture    three normals of scale 1 times e^5, base N(0, 3^2)
"""

import math

import numpy as np

BASE_SCALE = 3.0
WEIGHTS, RADIUS, LOG_FACTOR = np.array([0.2, 0.3, 0.5]), 3.0, 5.0
_rng = np.random.default_rng(3)
W, B, V = (_rng.normal(size=shape) for shape in ((32, 2), (32,), (32,)))


def centers(num_dims: int) -> np.ndarray:
    """Of the mixture: equally far from each other and from zero, in a plane; ``(3, num_dims)``."""
    angles = 2 * math.pi * np.arange(3) / 3
    result = np.zeros((3, num_dims))
    result[:, 0], result[:, 1] = RADIUS * np.cos(angles), RADIUS * np.sin(angles)
    return result


def offsets(num_dims: int) -> np.ndarray:
    """The mixture's energy is minus log sum_j exp(offset_j - |x - c_j|^2 / 2) - |x|^2 / (2 s^2)."""
    return np.log(WEIGHTS) + LOG_FACTOR + num_dims * math.log(BASE_SCALE)


def exact_draws(num_draws: int, num_dims: int, seed: int) -> np.ndarray:
    """From the mixture, shape ``(num_draws, num_dims)``."""
    rng = np.random.default_rng(seed)
    which = rng.choice(3, size=num_draws, p=WEIGHTS)
    return centers(num_dims)[which] + rng.normal(size=(num_draws, num_dims))


def log_normalizer(target: str) -> float:
    """The truth, by sums over fine grids where there is no closed form."""
    if target == "mixture":
        return LOG_FACTOR
    x = np.linspace(-20, 20, 801)
    if target == "quartic":
        return _log_integral(-(x**4) / 4 - x**2 / 2 - 0.5 * math.log(2 * math.pi), x, 1)
    points = np.stack(np.meshgrid(x, x), axis=-1)
    log_base = -(points**2).sum(-1) / (2 * BASE_SCALE**2) - math.log(2 * math.pi * BASE_SCALE**2)
    return _log_integral(log_base - np.tanh(points @ W.T + B) @ V, x, 2)


def _log_integral(log_density: np.ndarray, x: np.ndarray, num_dims: int) -> float:
    return float(np.log(np.exp(log_density).sum()) + num_dims * math.log(x[1] - x[0]))


# On each seed: target, dimensions, method, temperatures, sampler.
_RUNS = [
    ("quartic", 1, "grid", 1, "MALA"),
    ("quartic", 1, "importance", 1, "MALA"),
    ("quartic", 1, "annealed", 100, "MALA"),
    ("network", 2, "grid", 1, "MALA"),
    ("network", 2, "annealed", 100, "MALA"),
    ("mixture", 2, "grid", 1, "MALA"),
    ("mixture", 2, "importance", 1, "MALA"),
    ("mixture", 2, "annealed", 100, "MALA"),
    ("mixture", 16, "importance", 1, "MALA"),
    ("mixture", 16, "annealed", 2, "MALA"),
    ("mixture", 16, "annealed", 100, "MALA, step size 1e-6"),
    ("mixture", 16, "annealed", 100, "MALA"),
    ("mixture", 16, "annealed", 400, "MALA"),
    ("mixture", 64, "annealed", 400, "MALA"),
    ("mixture", 64, "annealed", 1600, "MALA"),
    ("mixture", 64, "annealed", 200, "HMC"),
]
CELLS = [
    dict(zip(("target", "num_dims", "method", "num_temperatures", "sampler"), run, strict=True))
    | {"seed": seed}
    for run in _RUNS
    for seed in (0, 1, 2)
]
COLUMNS = ["truth", "lower", "estimate", "upper", "standard error", "effective samples"]
