"""Generalized energy-based models in the plane; what both hosts share.

*Circles.* The data lie on the unit circle, the base on one whose center, a parameter, starts three
units away: no density, disjoint supports, infinite KL. KALE with a smooth energy is finite: it is
estimated at the start, by an energy that has a base at rest, and at the end of training both. The
base must find the data, and KALE fall to zero.

*Tilts.* A net makes points in the plane of a normal latent variable of one dimension (a curve) or
two: an implicit base. Base and energy are trained together by KALE, five steps of the energy for
each of the base, up to the step at which the base stops, early or late; the energy goes on to its
optimum, rates falling to zero. Then draws of the base, and of the model that the energy makes of
it, are compared with fresh data by the squared maximum mean discrepancy. Draws of the model are
of two kinds: latent chains, and draws of the base resampled by their weights. (KALE bounds a gain
in KL; no theorem says that the discrepancy falls with it, and where the base is a curve off the
data it need not.)

The gradient penalty matters: with a tenth of it, energies learn to put all weight on a few draws
where the base hardly reaches the data (an effective share of 2e-5), and the model is far worse than
its base.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pyro_ebm.datasets import toy

SEEDS = (0, 1, 2)
WIDTH, BASE_WIDTH = 64, 32  # of the nets of energy and base: two hidden layers, SiLU
BATCH_SIZE = 256  # values, and draws of the base
BETAS = (0.5, 0.9)
ENERGY_STEPS = 5  # for each of the base
NUM_DRAWS, POOL_SIZE = 1500, 50_000
CENTER = (3.0, 0.0)
CHAIN_STEPS, STEP_SIZE = 200, 0.05
KINDS = ("chains", "resampled")  # of draws of the model
BANDWIDTHS = (0.25, 0.5, 1.0)  # standard deviations of the Gaussian kernels, which are averaged

CIRCLE_COLUMNS = ["distance, start", "kale, start", "distance, end", "kale, end"]
GAINS = (*KINDS, "likelihood")
TILT_COLUMNS = [*("base", *KINDS, "data"), *(f"gain, {gain}" for gain in GAINS), "effective share"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How energy and base are trained.

    Attributes:
        num_steps: Of the energy.
        base_starts: The count of steps from which the base moves.
        base_stops: The count of steps from which it does not move any more.
        gradient_penalty: Of KALE.
        rates: Adam's, of either player, at the start; they fall to zero along half a cosine.
    """

    num_steps: int
    base_starts: int = 0
    base_stops: int
    gradient_penalty: float
    rates: Mapping[str, float]

    def base_moves(self, count: Any) -> Any:
        """Condition of the base, on the count of steps."""
        turn = count % ENERGY_STEPS == ENERGY_STEPS - 1
        return turn & (count >= self.base_starts) & (count < self.base_stops)


_CIRCLE = Setting(
    num_steps=1500,
    base_starts=100,
    base_stops=1500,
    gradient_penalty=0.2,
    rates={"energy": 3e-3, "base": 3e-2},  # smaller, and the base stops short of the data
)
CIRCLES = {"start": replace(_CIRCLE, num_steps=300, base_stops=0), "end": _CIRCLE}
TOYS = ("two_moons", "8_gaussians")
TILTS = {
    name: Setting(
        num_steps=2000,
        base_stops=base_stops,
        gradient_penalty=0.1,
        rates={"energy": 2e-3, "base": 1e-2},
    )
    for name, base_stops in (("early", 300), ("late", 1500))
}


def on_circle(count: int, seed: int) -> np.ndarray:
    angle = np.random.default_rng(seed).uniform(-np.pi, np.pi, count)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def batches(name: str, num_steps: int, seed: int) -> np.ndarray:
    """Fresh draws for every step, of the circle or of a toy: ``(num_steps, BATCH_SIZE, 2)``."""
    count = num_steps * BATCH_SIZE
    points = on_circle(count, seed) if name == "circle" else toy(name).sample(count, seed=seed)
    return points.reshape(num_steps, BATCH_SIZE, 2).astype(np.float32)


@dataclass(frozen=True)
class Estimate:
    value: float
    standard_error: float


def kale(on_data: np.ndarray, on_base: np.ndarray) -> Estimate:
    r"""Of :math:`-E_p[E] - \log E_{p_0}[e^{-E}]`, from energies of draws."""
    log_weights = -on_base.astype(np.float64)
    top = log_weights.max()
    weights = np.exp(log_weights - top)
    value = -np.mean(on_data, dtype=np.float64) - top - np.log(np.mean(weights))
    errors = np.std(on_data), np.std(weights) / np.mean(weights)
    counts = len(on_data), len(on_base)
    return Estimate(float(value), float(np.hypot(*(np.array(errors) / np.sqrt(counts)))))


def discrepancies(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Terms of the squared maximum mean discrepancy of two samples of one size, ``(N, N)``.

    They can be subtracted: terms of ``(x, y)`` less those of ``(z, y)`` compare x and z.
    """
    cross = _kernel(x, y)
    return _kernel(x, x) + _kernel(y, y) - cross - cross.T


def unbiased(terms: np.ndarray) -> Estimate:
    """Mean of the terms off the diagonal, and its standard error (a U-statistic's)."""
    off = terms - np.diag(np.diag(terms))
    rows = off.sum(1) / (len(terms) - 1)
    return Estimate(rows.mean(), 2 * rows.std(ddof=1) / np.sqrt(len(terms)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1) - 2 * x @ y.T
    return np.mean([np.exp(-squares / (2 * b**2)) for b in BANDWIDTHS], axis=0)


def resample(draws: np.ndarray, energies: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draws of the model from draws of its base, with probability in proportion to weights."""
    weights = np.exp(energies.min() - energies.astype(np.float64))
    chosen = np.random.default_rng(seed).choice(len(draws), count, p=weights / weights.sum())
    return draws[chosen]


def compare(
    name: str,
    seed: int,
    *,
    pool: np.ndarray,
    walked: np.ndarray,
    energy: Callable[[np.ndarray], np.ndarray],
) -> dict[str, float]:
    """Figures of a model and of its base on fresh data.

    Args:
        name: Of the toy.
        seed: Of the data and of resampling.
        pool: Draws of the base, ``(POOL_SIZE, 2)``.
        walked: Draws of the model from chains, ``(N, 2)``.
        energy: Maps points ``(N, 2)`` to ``(N,)``.
    """
    count, energies = len(walked), energy(pool)
    fresh, more = (toy(name).sample(count, seed=s + seed) for s in (10_000, 20_000))
    rest = slice(count, None)
    draws = {
        "base": pool[:count],
        "chains": walked,
        "resampled": resample(pool[rest], energies[rest], count, seed),
        "data": more,
    }
    terms = {label: discrepancies(points, fresh) for label, points in draws.items()}
    figures = {label: unbiased(own).value for label, own in terms.items()}
    unseen = toy(name).sample(len(pool), seed=30_000 + seed).astype(np.float32)
    gains = {kind: unbiased(terms["base"] - terms[kind]) for kind in KINDS}
    for label, gain in (gains | {"likelihood": kale(energy(unseen), energies)}).items():
        figures |= {f"gain, {label}": gain.value, f"error, {label}": gain.standard_error}
    weights = np.exp(energies.min() - energies.astype(np.float64))
    share = weights.sum() ** 2 / np.sum(weights**2) / len(weights)
    return figures | {"effective share": float(share)}


def circle_cells() -> list[dict]:
    return [{"seed": seed} for seed in SEEDS]


def tilt_cells() -> list[dict]:
    return [
        {"name": name, "dimension": dimension, "stop": stop, "seed": seed}
        for seed in SEEDS
        for name in TOYS
        for dimension in (1, 2)
        for stop in TILTS
    ]


def print_tables(circles: list[dict], tilts: list[dict]) -> None:
    """Means over seeds and, in brackets, their standard errors."""
    print("\ncircles" + "".join(f"{name:>20s}" for name in CIRCLE_COLUMNS))
    print(" " * 7 + "".join(_cell(circles, name) for name in CIRCLE_COLUMNS))
    print(f"\n{'tilts':30s}" + "".join(f"{name:>20s}" for name in TILT_COLUMNS))
    for label in dict.fromkeys(_label(row) for row in tilts):
        own = [row for row in tilts if _label(row) == label]
        print(f"{label:30s}" + "".join(_cell(own, name) for name in TILT_COLUMNS))
    for gain in GAINS:
        scores = [row[f"gain, {gain}"] / row[f"error, {gain}"] for row in tilts]
        print(f"gain, {gain}: in its standard errors from {min(scores):.1f} to {max(scores):.1f}")


def _label(row: dict) -> str:
    return ", ".join(f"{value}" for key, value in row["cell"].items() if key != "seed")


def _cell(rows: list[dict], name: str) -> str:
    values = [row[name] for row in rows]
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{np.mean(values):9.4f} ({error:.4f})".rjust(20)
