"""A Gaussian fitted to two Gaussians by f-divergences; what both hosts share.

Yu et al. (2020), their script for one dimension: data .33 N(-1, .25^2) + .67 N(2, 2), the energy
((x - mu) / sigma)^2 / 2 from (0, 1), exact draws of the model, a critic MLP 1-64-64-1 with tanh.
They take 30,000 steps of plain gradient descent at rate 1e-3, the critic first; here both players
move at once by Adam, whose rate falls to zero along a half cosine. The log-ratio is clipped to 3,
as theirs is for KL: with a bound of 20 KL left the path in one of three runs, and Pearson, Neyman
and alpha = -1 did in all. For these three, whose weights grow fastest, the energy has the
covariance gradient, and twice the steps: after 5,000 they end .01 to .027 from the optimum.
"""

import math
from typing import Any

import numpy as np

from pyro_ebm.core.objectives.divergences import alpha_divergence

WEIGHTS, MEANS, SCALES = (0.33, 0.67), (-1.0, 2.0), (0.25, math.sqrt(2.0))
BATCH_SIZE, LEARNING_RATE, BETAS, WIDTH = 1000, 5e-3, (0.5, 0.999), 64
SEEDS = (0, 1, 2)
LOG_RATIO_BOUND = 3.0
NUM_STEPS = 5_000
STEEP = ("pearson", "neyman", "alpha=-1")

# Divergence: the authors' (mu, sigma), the exact optimum by quadrature, from the methods page.
FITS = {
    "kl": ((1.0154, 1.8302), (1.0100, 1.8304)),
    "reverse_kl": ((1.5852, 1.6345), (1.5841, 1.6294)),
    "jensen_shannon": ((1.3167, 1.7604), (1.3125, 1.7525)),
    "squared_hellinger": ((1.3227, 1.7471), (1.3175, 1.7316)),
    "alpha=-0.5": ((1.7433, 1.5521), (1.7449, 1.5587)),
    "alpha=-1": ((1.8198, 1.5251), (1.8286, 1.5171)),
    "alpha=0.9": ((1.0724, 1.8185), (1.0694, 1.8132)),
    "pearson": ((0.5656, 1.9346), (0.5663, 1.9268)),
    "neyman": ((1.8268, 1.5160), (1.8286, 1.5171)),
}
COLUMNS = ["mu", "sigma", "exact mu", "exact sigma", "authors mu", "authors sigma", "error"]


def batches(num_steps: int, seed: int) -> np.ndarray:
    """Data, shape ``(num_steps, BATCH_SIZE)``; each batch has just its share of each component."""
    rng = np.random.default_rng(seed)
    sizes = [round(weight * BATCH_SIZE) for weight in WEIGHTS]
    parts = [
        mean + scale * rng.standard_normal((num_steps, size))
        for mean, scale, size in zip(MEANS, SCALES, sizes, strict=True)
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def cells() -> list[dict]:
    return [
        {
            "divergence": divergence,
            "num_steps": (1 + (divergence in STEEP)) * NUM_STEPS,
            "seed": seed,
        }
        for divergence in FITS
        for seed in SEEDS
    ]


def options(divergence: str) -> dict[str, Any]:
    """Arguments of the objective."""
    name, _, alpha = divergence.partition("=")
    return {
        "divergence": alpha_divergence(float(alpha)) if alpha else name,
        "gradient": "covariance" if divergence in STEEP else "full",
        "log_ratio_bound": LOG_RATIO_BOUND,
    }


def compared(divergence: str, mu: float, sigma: float) -> dict[str, float]:
    """A fit beside the exact optimum and the authors' fit."""
    authors, exact = FITS[divergence]
    error = max(abs(mu - exact[0]), abs(sigma - exact[1]))
    return dict(zip(COLUMNS, (mu, sigma, *exact, *authors, error), strict=True))
