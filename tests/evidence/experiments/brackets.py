"""Brackets on known normalizing constants.

- quartic: E(x) = x^4 / 4, base N(0, 1);
- network: E(x) = v . tanh(W x + b) with random weights, in two dimensions, base N(0, 3^2);
- mixture: three normals of scale 1 times e^5, base N(0, 3^2).

The truth is exact for the mixture and a sum over a fine grid for the others. `log_normalizer` with
1,000 samples gives `lower`, `estimate` and `upper`.
"""

import math
import warnings
from functools import cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace

FIGURES = ("lower", "estimate", "upper")
BASE_SCALE = 3.0
WEIGHTS, RADIUS, LOG_FACTOR = np.array([0.2, 0.3, 0.5]), 3.0, 5.0
_rng = np.random.default_rng(3)
W, B, V = (_rng.normal(size=shape) for shape in ((32, 2), (32,), (32,)))
# Target, dimensions, method, temperatures, sampler.
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
_SETTINGS = ("target", "num_dims", "method", "num_temperatures", "sampler")
CELLS = [dict(zip(_SETTINGS, run, strict=True)) for run in _RUNS]
QUICK = CELLS[7]


def centers(num_dims: int) -> np.ndarray:
    """Centers ``(3, num_dims)``, equally far from each other and from zero, in a plane."""
    angles = 2 * math.pi * np.arange(3) / 3
    result = np.zeros((3, num_dims))
    result[:, 0], result[:, 1] = RADIUS * np.cos(angles), RADIUS * np.sin(angles)
    return result


def offsets(num_dims: int) -> np.ndarray:
    """The mixture's energy is minus log sum_j exp(offset_j - |x - c_j|^2 / 2) - |x|^2 / (2 s^2)."""
    return np.log(WEIGHTS) + LOG_FACTOR + num_dims * math.log(BASE_SCALE)


def exact_draws(num_draws: int, num_dims: int, seed: int) -> np.ndarray:
    """Draw from the mixture, shape ``(num_draws, num_dims)``."""
    rng = np.random.default_rng(seed)
    which = rng.choice(3, size=num_draws, p=WEIGHTS)
    return centers(num_dims)[which] + rng.normal(size=(num_draws, num_dims))


@cache
def log_normalizer(target: str) -> float:
    """Compute the truth, by sums over fine grids where there is no closed form."""
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


def quartic_energy(x: Any) -> Any:
    return x**4 / 4


def network_energy(w: Any, b: Any, v: Any, x: Any) -> Any:
    return array_namespace(x).tanh(x @ w.T + b) @ v


def mixture_energy(center: Any, offset: Any, x: Any) -> Any:
    xp = array_namespace(x)
    exponents = offset - 0.5 * xp.sum((x[:, None] - center) ** 2, axis=-1)
    top = xp.max(exponents, axis=-1)
    log_sum = top + xp.log(xp.sum(xp.exp(exponents - top[:, None]), axis=-1))
    return -log_sum - xp.sum(x**2, axis=-1) / (2 * BASE_SCALE**2)


def distribution(host: Any, target: str, num_dims: int) -> Any:
    if target == "quartic":
        return host.ebm.EnergyBased(quartic_energy, host.dist.Normal(0.0, 1.0))
    if target == "network":
        energy, arrays = network_energy, (W, B, V)
    else:
        energy, arrays = mixture_energy, (centers(num_dims), offsets(num_dims))
    constants = (host.array(x.astype(np.float32)) for x in arrays)
    base = host.normal(num_dims, scale=BASE_SCALE)
    return host.ebm.EnergyBased(host.bind(energy, *constants), base)


def kernel(host: Any, name: str) -> Any:
    """Kernel for annealing; with a step size of 1e-6, which is not tuned, chains do not move."""
    if name == "MALA, step size 1e-6":
        return host.ebm.MALA(1e-6, target_accept_prob=None)
    return getattr(host.ebm, name)(0.1)


def run(
    host: Any,
    seed: int,
    *,
    target: str,
    num_dims: int,
    method: str,
    num_temperatures: int,
    sampler: str,
) -> dict[str, float]:
    host.seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Some brackets are to widen.
        result = host.log_normalizer(
            distribution(host, target, num_dims),
            method=method,
            num_temperatures=num_temperatures,
            sampler=kernel(host, sampler),
        )
    return {
        "truth": log_normalizer(target),
        **{name: float(getattr(result, name)) for name in ("lower", "estimate", "upper")},
        "standard error": float(result.standard_error),
        "effective samples": float(result.effective_sample_size),
    }
