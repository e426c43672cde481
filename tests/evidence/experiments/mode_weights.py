"""Weights of modes by sequential Monte Carlo, on mixtures of normals and a quartic.

A record holds 20 runs of `run_smc` with 1,024 draws each, whose seeds are 20 times that of the
record and the 19 after it. `distance` is the total variation between the drawn and the exact
weights, `exact` that of as many independent draws; `scale` is the standard deviation around the
centers, divided by the exact one; `log Z` and `sd` are mean and standard deviation of the error of
the estimate, `predicted` the mean of its standard error, `evaluations` the gradients a draw.

- two: 1-d, -1.5 and 1.5, sd .1, .615 and .385; base N(0, 2);
- three: 2-d, radius 3, sd .3, .5, .3 and .2; base N(0, 2);
- two, 16-d: 8 standard deviations of 1 apart, .9 and .1; base N(0, 2);
- moons: two half circles of radius .2, sd .02, .7 and .3; base N(0, 1);
- grid of 25: spacing 2, sd .05, equal weights; base N(0, 4), of whose 1,024 draws four begin near
  a corner, or N(0, 16), of which 15 do: nothing but more draws helps;
- narrow: one normal of sd .15 or .02 in 2 or 32 dimensions; base N(0, 1);
- wide and narrow: 16-d, 8 apart, sd .3 and .9, equal weights; base N(0, 2). A path from the base
  misses the narrow one, and nothing shows it: log Z is low by log 2;
- quartic: 1-d, energy x^4 - 2 x; base N(0, 1). The one center is its mean, sd .450. Chains that
  start in its tails get stuck there.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

FIGURES = ("distance", "exact", "scale", "log Z", "sd", "predicted", "evaluations")
NUM_RUNS, NUM_DRAWS = 20, 1024


class Mixture(NamedTuple):
    """Normals around centers `(K, d)` with weights and standard deviations `(K,)`.

    `modes` numbers the mode of each center; the base is N(0, `base_variance`). Where there is an
    `energy`, the law is not the mixture and only has its weights and scale.
    """

    centers: np.ndarray
    weights: np.ndarray
    scales: np.ndarray
    modes: np.ndarray
    base_variance: float
    energy: Callable[[Any], Any] | None = None
    log_normalizer: float = 0.0


def _mixture(centers: Any, weights: Any, scales: Any, base_variance: float) -> Mixture:
    centers = np.asarray(centers, float)
    scales = np.broadcast_to(np.asarray(scales, float), len(centers))
    return Mixture(centers, np.asarray(weights), scales, np.arange(len(centers)), base_variance)


def _moons() -> Mixture:
    angles = np.linspace(0, np.pi, 30)
    upper = np.stack([np.cos(angles), np.sin(angles)], -1) - [0.5, 0.25]
    lower = [0.5, 0.25] - np.stack([np.cos(angles), np.sin(angles)], -1)
    weights = np.repeat([0.7, 0.3], 30) / 30
    moons = _mixture(0.2 * np.concatenate([upper, lower]), weights, 0.02, 1.0)
    return moons._replace(modes=np.repeat([0, 1], 30))


def _two_16(weights: Any, scales: Any) -> Mixture:
    return _mixture([[-1.0] * 16, [1.0] * 16], weights, scales, 2.0)


def _quartic() -> Mixture:
    """Moments and log Z by sums over a grid."""
    grid = np.linspace(-6, 6, 12_001)[:, None]
    weights = np.exp(-quartic_energy(grid) - grid[:, 0] ** 2 / 2)
    total = weights.sum()
    mean = weights @ grid / total
    scale = math.sqrt(weights @ (grid - mean)[:, 0] ** 2 / total)
    log_z = math.log(total * 0.001 / math.sqrt(2 * math.pi))
    quartic = _mixture([mean], [1.0], scale, 1.0)
    return quartic._replace(energy=quartic_energy, log_normalizer=log_z)


def quartic_energy(x: Any) -> Any:
    return x[:, 0] ** 4 - 2 * x[:, 0]


_ANGLES = 2 * np.pi * np.arange(3) / 3
_PLANE = [[x, y] for x in range(-4, 5, 2) for y in range(-4, 5, 2)]
TARGETS = {
    "two": _mixture([[-1.5], [1.5]], [0.615, 0.385], 0.1, 2.0),
    "three": _mixture(
        3 * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], -1), [0.5, 0.3, 0.2], 0.3, 2.0
    ),
    "two, 16-d": _two_16([0.9, 0.1], 1.0),
    "moons": _moons(),
    "grid of 25": _mixture(_PLANE, [0.04] * 25, 0.05, 4.0),
    "grid of 25, wide base": _mixture(_PLANE, [0.04] * 25, 0.05, 16.0),
    **{
        f"narrow, {dims}-d, {scale}": _mixture(np.zeros((1, dims)), [1.0], scale, 1.0)
        for dims in (2, 32)
        for scale in (0.15, 0.02)
    },
    "wide and narrow, 16-d": _two_16([0.5, 0.5], [0.3, 0.9]),
    "quartic": _quartic(),
}
CELLS = [{"target": target} for target in TARGETS]
QUICK = {"target": "two", "num_runs": 2}


def energy(centers: Any, log_weights: Any, scales: Any, base_variance: Any, x: Any) -> Any:
    """Minus the log-density of the mixture, plus that of the base."""
    xp, dims = array_namespace(x, centers), centers.shape[1]
    squares = xp.sum((x[:, None, :] - centers) ** 2, axis=-1)
    terms = log_weights - squares / (2 * scales**2) - dims * xp.log(scales)
    highest = xp.max(terms, axis=-1, keepdims=True)
    log_density = highest[:, 0] + xp.log(xp.sum(xp.exp(terms - highest), axis=-1))
    log_base = -xp.sum(x**2, axis=-1) / (2 * base_variance) - dims / 2 * xp.log(base_variance)
    return log_base - log_density


def distribution(host: Any, mixture: Mixture) -> Any:
    parts = mixture.centers, np.log(mixture.weights), mixture.scales, mixture.base_variance
    constants = (host.array(np.asarray(part, np.float32)) for part in parts)
    base = host.normal(mixture.centers.shape[1], scale=math.sqrt(mixture.base_variance))
    own = mixture.energy
    bound = host.bind(own) if own else host.bind(energy, *constants)
    return host.ebm.EnergyBased(bound, base)


def run(host: Any, seed: int, *, target: str, num_runs: int = NUM_RUNS) -> dict[str, Any]:
    mixture, smc, records = TARGETS[target], host.ebm.SMC(), []
    prior, rng = distribution(host, mixture), np.random.default_rng(seed)
    weights = np.bincount(mixture.modes, mixture.weights)
    for number in range(num_runs):
        host.seed(NUM_RUNS * seed + number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            draws = host.run_smc(smc, prior, num_samples=NUM_DRAWS)
        distances, scale = compare(np.asarray(draws.samples), mixture, weights)
        exact = rng.multinomial(NUM_DRAWS, weights) / NUM_DRAWS
        temperatures = int((np.asarray(draws.inverse_temperatures) < 1).sum())
        log_z, error = float(draws.log_normalizer), float(draws.standard_error)
        log_z -= mixture.log_normalizer
        floor = abs(exact - weights).sum() / 2
        count = temperatures * smc.num_moves + 1
        records.append([distances, floor, scale, log_z, error, count])
    table = np.array(records)
    means, deviations = table.mean(0), table.std(0, ddof=1)
    pairs = np.stack([means, deviations / math.sqrt(num_runs)], axis=-1).tolist()
    distance, floor, scale, log_z = pairs[:4]
    return {
        "distance": distance,
        "exact": floor,
        "scale": scale,
        "log Z": log_z,
        "sd": float(deviations[3]),
        "predicted": float(means[4]),
        "evaluations": float(means[5]),
    }


def compare(samples: np.ndarray, mixture: Mixture, weights: np.ndarray) -> tuple[float, float]:
    """Return the total variation of the weights of modes, and the relative scale."""
    shifts = samples[:, None, :] - mixture.centers
    squares = (shifts**2).sum(-1) / mixture.scales**2
    nearest = squares.argmin(-1)
    found = np.bincount(mixture.modes[nearest], minlength=len(weights)) / len(samples)
    rows = np.arange(len(samples))
    scale = math.sqrt((squares[rows, nearest] / samples.shape[1]).mean())
    return abs(found - weights).sum() / 2, scale
