"""Figures that several experiments report."""

import math
from typing import Any

import numpy as np

from pyro_ebm.core.evidence.weights import summarize_log_weights


def bounds(log_ratios: np.ndarray, slopes: np.ndarray) -> dict[str, float]:
    """Bound log Z from draws of a generator, and estimate it by importance sampling.

    Args:
        log_ratios: Log-ratios of the draws, ``(M,)``.
        slopes: Gradients of the log-ratio in the latent, ``(M, *latent)``; their mean half square
            is the penalty.
    """
    log_ratios = log_ratios.astype(np.float64)
    half_squares = 0.5 * np.sum(slopes.astype(np.float64).reshape(len(slopes), -1) ** 2, axis=1)
    with np.errstate(invalid="ignore"):
        weights = summarize_log_weights(log_ratios)
        return {
            "lower": float(log_ratios.mean()),
            "error, lower": standard_error(log_ratios),
            "penalty": float(half_squares.mean()),
            "error, penalty": standard_error(half_squares),
            "estimate": float(weights.estimate),
            "error, estimate": float(weights.standard_error),
            "effective share": float(weights.effective_sample_size) / len(log_ratios),
        }


def standard_error(values: np.ndarray) -> float:
    """Standard error of a mean."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def mean_and_error(values: Any, *errors: float) -> list[float]:
    """Mean and its standard error, with independent errors of what all values share."""
    return [float(np.mean(values)), math.hypot(standard_error(np.asarray(values)), *errors)]
