"""Generalized energy-based priors of the digits tutorials' decoder: what both hosts share.

Networks, training images and guide are those of the tutorials. The prior is the tutorials' normal
one; a flow (affine coupling layers), trained with decoder and encoder by the stock ELBO; or
either of these with an energy, trained by KALE, the flow along with it.

The penalty is what keeps the tilted normal in place. The encoder follows the energy, and a shift of
both costs nothing, so that they drift to where few draws of the base count and KALE takes log Z for
too low. Tried with NumPyro, seed 0, looking at figures of health in training alone: without
penalty it ended in NaN; with one of 0.1 a single of 500 draws counted after 250 steps, and NaN
came by 350; with one of 1 more than 300 counted over the 800 steps that were looked at. Beside
these there was a run of 200 steps of either flow prior without penalty, on validation images.
"""

import math
from typing import Any, NamedTuple

import numpy as np


class Prior(NamedTuple):
    """Whether the base is a flow, and whether an energy tilts it."""

    flow: bool
    energy: bool


PRIORS = {
    "normal": Prior(flow=False, energy=False),
    "tilted normal": Prior(flow=False, energy=True),
    "flow": Prior(flow=True, energy=False),
    "tilted flow": Prior(flow=True, energy=True),
}
COMPARISONS = [
    ("tilted normal", "normal"),
    ("flow", "normal"),
    ("tilted flow", "normal"),
    ("tilted flow", "flow"),
]
SEEDS = (0, 1, 2)
NUM_STEPS, BATCH_SIZE, LEARNING_RATE = 1500, 128, 1e-3
NUM_LAYERS, FLOW_WIDTH = 3, 64
OBJECTIVE = {"num_base_samples": 500, "gradient_penalty": 1.0}
NUM_IMPORTANCE = 500
LOG_Z = {"num_samples": 500, "num_temperatures": 200}
COLUMNS = ["score", "log_z", "lower", "upper"]


def kale(ebm: Any, stock: Any) -> Any:
    """The loss of a host's front end that trains an energy beside the stock ELBO."""
    return ebm.EnergyELBO(ebm.KALE(**OBJECTIVE), stock, num_normalizer_samples=0)


def cells(split: str = "test") -> list[dict]:
    return [{"prior": prior, "split": split, "seed": seed} for seed in SEEDS for prior in PRIORS]


def figures(scores: Any, log_z: Any = None) -> dict[str, Any]:
    """What is kept of one run: log-likelihoods of unseen images, and how well log Z is known.

    Args:
        scores: Of each image, without log Z.
        log_z: The record of ``log_normalizer``, where there is an energy.
    """
    parts = (0.0,) * 4 if log_z is None else map(float, log_z[:4])
    estimate, lower, upper, error = parts
    scores = np.asarray(scores, dtype=float) - estimate
    return {
        "score": scores.mean(),
        "log_z": estimate,
        "lower": lower,
        "upper": upper,
        "log_z_error": error,
        "scores": scores.tolist(),
    }


def report(rows: list[dict[str, Any]], comparisons: list[tuple[str, str]] = COMPARISONS) -> None:
    """Gains over another prior with the same seed, in nats an image, with standard errors."""
    found = {(row["cell"]["prior"], row["cell"]["seed"]): row for row in rows}
    for name, other in comparisons:
        for seed in SEEDS:
            row, against = found[name, seed], found[other, seed]
            gains = np.subtract(row["scores"], against["scores"])
            errors = gains.std(ddof=1) / math.sqrt(len(gains)), row["log_z_error"]
            error = math.hypot(*errors, against["log_z_error"])
            print(f"{name} over {other}, seed {seed}: {gains.mean():.2f} ± {error:.2f}")
