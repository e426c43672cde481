"""Handwritten digits without an encoder, for both hosts: what is run, and what is reported.

The decoder and the energy are those of the digits tutorials. Both priors are trained with short-run
posterior Langevin in the place of an encoder. One of two settings was chosen on validation images
(0.01 and 40 steps against 0.005 and 80). Each unseen image is then scored twice: by importance
sampling from a normal fitted to its posterior, and, the first of them, by annealing from the base.
"""

import math
from typing import Any

import numpy as np

PRIORS = ("normal", "energy-based")
NUM_TRAINING, BATCH_SIZE, LEARNING_RATE = 1200, 128, 1e-3
STEP_SIZE, NUM_LANGEVIN = 0.01, 40
VARIANCE = 0.25
# The fitted normals are widened, for tails that are thinner than the posterior's cost more.
NUM_FITTING, FITTING_RATE, WIDENED = 1000, 1e-2, 1.15
NUM_IMPORTANCE, IMPORTANCE_BATCH = 1000, 50
NUM_ANNEALED_IMAGES = 50
ANNEALING = {"method": "annealed", "num_samples": 8, "num_temperatures": 400}
LOG_Z = {"num_samples": 500, "num_temperatures": 1000}
COLUMNS = ["importance", "annealed", "median_size", "log_z", "log_z_error"]


def cells() -> list[dict]:
    return [{"prior_name": prior, "split": "test", "seed": 0} for prior in PRIORS]


def figures(importance: Any, annealed: Any, log_z: float, log_z_error: float) -> dict[str, Any]:
    """What is kept of one prior: means, and the scores of the images themselves."""
    scores = {"importance": importance.estimate, "annealed": annealed.estimate}
    return {
        **{method: float(np.mean(np.asarray(score))) for method, score in scores.items()},
        "median_size": float(np.median(np.asarray(importance.effective_sample_size))),
        "log_z": log_z,
        "log_z_error": log_z_error,
        **{f"{method}_scores": np.asarray(score).tolist() for method, score in scores.items()},
    }


def report(rows: list[dict[str, Any]]) -> None:
    """Log-likelihoods of unseen images and paired gains in nats, with standard errors."""
    normal, tilted = rows
    for method in ("importance", "annealed"):
        for name, row in zip(PRIORS, rows, strict=True):
            print(f"{method:11s} {name:13s} {_mean(row[f'{method}_scores'], row['log_z_error'])}")
        gains = np.subtract(tilted[f"{method}_scores"], normal[f"{method}_scores"])
        print(f"{method:11s} {'paired gain':13s} {_mean(gains, tilted['log_z_error'])}")


def _mean(values: Any, log_z_error: float) -> str:
    """Mean with its standard error; log Z's is common to all images."""
    error = math.hypot(np.std(values, ddof=1) / math.sqrt(len(values)), log_z_error)
    return f"{np.mean(values):7.2f} ± {error:.2f}  ({len(values)} images)"
