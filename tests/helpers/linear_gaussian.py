"""A latent-variable model whose best energy prior is known, for both hosts.

    x | z ~ N(z, 1),   z ~ exp(-e^a z^2 / 2) N(z; 0, 4^2) / Z,   q(z | x) = N(slope x, scale^2)

Data with mean square 5 (in either half of them) make prior precision 1/16 + e^a = 0.25, slope 0.8
and scale 0.8^(1/2) exactly optimal; the negative log-evidence of a datum is then 2.22366.
"""

import math

import numpy as np

NUM_DATA, SUBSAMPLE = 512, 128
PRECISION = 0.25
SLOPE, SCALE = 0.8, math.sqrt(0.8)
NEGATIVE_LOG_EVIDENCE = 0.5 * math.log(2 * math.pi * 5) + 0.5
LAYOUTS = ("plate", "to_event", "subsample", "mask", "masked distribution")
VARIANCE, NUM_SAMPLES, LEARNING_RATE = 2.0, 16, 0.01
# The same half is masked out on both hosts.
MASK = np.arange(NUM_DATA) < NUM_DATA // 2


def log_weight(precision: float) -> float:
    """The parameter a of a prior with this precision."""
    return math.log(precision - 1 / 16)


def data(num_data: int = NUM_DATA, seed: int = 0) -> np.ndarray:
    """Normal data, each half with mean 0 and mean square 5 exactly; shape ``(num_data,)``."""
    halves = np.random.default_rng(seed).normal(size=(2, num_data // 2))
    halves = halves - halves.mean(axis=1, keepdims=True)
    return (math.sqrt(5) * halves / halves.std(axis=1, keepdims=True)).reshape(-1)


def num_counted(layout: str) -> int:
    """Data that the loss counts."""
    return NUM_DATA // 2 if "mask" in layout else NUM_DATA


def is_optimal(results: dict[str, float]) -> bool:
    """Whether precision, loss, slope and scale are right within 5 %, or 0.05 nats."""
    exact = {"loss": NEGATIVE_LOG_EVIDENCE, "slope": SLOPE, "scale": SCALE}
    errors = {name: abs(results[name] - value) / 0.05 for name, value in exact.items()}
    errors["precision"] = abs(results["precision"] / PRECISION - 1) / 0.05
    print(errors)
    return max(errors.values()) < 1
