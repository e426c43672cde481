"""An energy that tilts a fitted Gaussian or a fitted flow, held constant; what both hosts share.

The Gaussian has the mean and covariance of the training points, the flow (two affine coupling
layers) their likelihood as its loss. Then the net of the comparison in the plane is trained by
KALE, in either form, on the same points, and nothing else moves.

Reported, in nats a point that no one was trained on: the log-likelihood of the base, that of the
tilted model, and their difference, the gain L(E) = -mean E - log Z. log Z is bracketed on grids by
``log_normalizer``; the brackets of the gain are its own, without the error of the mean over points.
``kl_base`` and ``kl_model`` are divergences of the truth from base and model, both by another
quadrature, which normalises the model itself: kl_base - kl_model is L(E) without either error.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from gaussians_25 import grid

from pyro_ebm.datasets import toy

TOY = toy("two_spirals")
BASES = ("gaussian", "flow")
FORMS = ("donsker_varadhan", "fenchel")
SEEDS = (0, 1, 2)
NUM_TRAIN, NUM_TEST = 10_000, 10_000
BATCH_SIZE, LEARNING_RATE = 128, 3e-3  # falls to zero along a half cosine
NUM_STEPS = {"flow": 1000, "energy": 1000}
NORMALIZER_RATE = 3e-2  # of the learned log-normalizer, which no figure uses
NUM_LAYERS, FLOW_WIDTH = 2, 32
NUM_BASE_SAMPLES = 500
GRID = {"limit": 6.0, "size": 200}
COLUMNS = ["base", "tilted", "gain", "error", "lower", "upper", "kl_base", "kl_model"]

# Of points as NumPy has them, shape (N, 2), to energies and log-densities of the base, shape (N,).
OfPoints = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Points(NamedTuple):
    train: np.ndarray
    test: np.ndarray


def points(seed: int) -> Points:
    train = TOY.sample(NUM_TRAIN, seed=seed)
    test = TOY.sample(NUM_TEST, seed=10_000 + seed)
    return Points(train.astype(np.float32), test.astype(np.float32))


def learning_rate(player: str) -> float:
    return NORMALIZER_RATE if player == "log_normalizer" else LEARNING_RATE


def kale(ebm: Any, form: str) -> Any:
    """The loss of a host's front end that trains the energy."""
    objective = ebm.KALE(form=form, num_base_samples=NUM_BASE_SAMPLES)
    return ebm.EnergyELBO(objective, num_normalizer_samples=0)


def figures(parts: OfPoints, log_z: Any, test: np.ndarray) -> dict[str, float]:
    """What is reported of an energy over a base, with the record of ``log_normalizer``."""
    energies, base = (part.astype(float) for part in parts(test))
    tilts = -energies
    gain = tilts.mean() - float(log_z.estimate)
    return {
        "base": base.mean(),
        "tilted": base.mean() + gain,
        "gain": gain,
        "error": tilts.std(ddof=1) / math.sqrt(len(test)),
        "lower": tilts.mean() - float(log_z.upper),
        "upper": tilts.mean() - float(log_z.lower),
        **divergences(parts),
    }


def divergences(parts: OfPoints) -> dict[str, float]:
    """KL(truth, base) and KL(truth, model) by midpoints."""
    middles, log_area = grid(**GRID)
    energies, log_base = (part.astype(float) for part in parts(middles.astype(np.float32)))
    log_model = log_base - energies
    log_model = log_model - np.logaddexp.reduce(log_model) - log_area
    log_truth = _log_truth()
    near = log_truth > -np.inf
    share = np.exp(log_truth[near] + log_area)
    return {
        "kl_base": float(share @ (log_truth - log_base)[near]),
        "kl_model": float(share @ (log_truth - log_model)[near]),
    }


@cache
def _log_truth() -> np.ndarray:
    return TOY.log_density(grid(**GRID)[0])


def cells() -> list[dict[str, Any]]:
    return [
        {"base": base, "form": form, "seed": seed}
        for base in BASES
        for form in FORMS
        for seed in SEEDS
    ]


def print_table(rows: list[dict[str, Any]]) -> None:
    """Means over seeds and, in brackets, their standard errors; how the identity holds."""
    print(f"\n{'':28s}" + "".join(f"{name:>18s}" for name in ("base", "tilted", "gain")))
    for base in BASES:
        for form in FORMS:
            cell = {"base": base, "form": form}
            own = [row for row in rows if cell.items() <= row["cell"].items()]
            line = f"{base + ', ' + form:28s}"
            for name in ("base", "tilted", "gain"):
                values = [row[name] for row in own]
                error = np.std(values, ddof=1) / np.sqrt(len(values))
                line += f"{np.mean(values):9.3f} ({error:.3f})".rjust(18)
            print(line)
    width = max(row["upper"] - row["lower"] for row in rows)
    misses = [abs(row["gain"] - (row["kl_base"] - row["kl_model"])) / row["error"] for row in rows]
    print(f"widest bracket {width:.4f}; KL(P, G) - KL(P, Q) - L: at most {max(misses):.1f} errors")
