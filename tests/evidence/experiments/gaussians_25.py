"""25 Gaussians by energy discrepancy, contrastive divergence and score matching.

Schröder et al. (2023): MLP 2-128-128-128-128-1 with softplus, Adam 1e-3, fresh batches of 128,
exponential moving average .999 of the weights; variance 1 and 4 negatives; for contrastive
divergence 10 steps of Langevin dynamics of size .005 from the data and a penalty of .3 on squared
energies; for score matching the exact Hessian. Read off their plot, the mean squared error of the
log-density by energy discrepancy is about .05 after 10,000 steps and .02 from 20,000 on,
by contrastive divergence .45 to .65, by score matching 3 to 5; they normalize on data, which
overlooks mass between the modes. Here the density is normalized on a grid, and the learning rate
falls to zero along half a cosine, for all three alike.

`mse` is that error on fresh points, with its `standard error`.
"""

import math
from functools import cache
from typing import Any

import numpy as np

from evidence import plane
from evidence.hosts import Adam, no_guide, train_all
from pyro_ebm.datasets import toy

TOY = "25_gaussians"
FIGURES = ("mse", "standard error")
WIDTH, DEPTH = 128, 4
VARIANCE, NUM_NEGATIVES = 1.0, 4
STEP_SIZE, NUM_LANGEVIN, ENERGY_PENALTY = 0.005, 10, 0.3
BATCH_SIZE, LEARNING_RATE, NUM_STEPS, DECAY = 128, 1e-3, 20_000, 0.999
BASE_SCALE = 2.0  # standard deviation of the normal base: it only shapes the far tails
NUM_TEST = 5_000
OBJECTIVES = "energy discrepancy", "contrastive divergence", "score matching"
CELLS = [{"objective": objective, "num_steps": NUM_STEPS} for objective in OBJECTIVES]
OPTIONAL = [{"objective": "energy discrepancy", "num_steps": 50_000}]
QUICK = {
    "objective": "energy discrepancy",
    "num_steps": 200,
    "width": 64,
    "learning_rate": 1e-2,
    "decay": 0.9,
    "grid_size": 80,
}


@cache
def inference(host: Any, objective: str, num_steps: int, learning_rate: float) -> Any:
    ebm = host.ebm
    trained_by = {
        "energy discrepancy": ebm.EnergyDiscrepancy(variance=VARIANCE, num_samples=NUM_NEGATIVES),
        "contrastive divergence": ebm.ContrastiveDivergence(
            sampler=ebm.Langevin(STEP_SIZE),
            num_steps=NUM_LANGEVIN,
            init="data",
            energy_penalty=ENERGY_PENALTY,
        ),
        "score matching": ebm.ScoreMatching(),
    }
    loss = ebm.EnergyELBO(trained_by[objective], num_normalizer_samples=0)
    model = plane.model(host, BASE_SCALE)
    return host.Inference(model, no_guide, loss, Adam(learning_rate), num_steps)


def mean_squared_error(log_density: plane.Density, seed: int, grid_size: int) -> dict[str, float]:
    """Error of an unnormalized log-density on fresh points of the true density."""
    log_density = plane.in_blocks(log_density)
    log_normalizer, boundary_mass = plane.normalize(log_density, size=grid_size)
    test = toy(TOY).sample(NUM_TEST, seed=10_000 + seed)
    error = log_density(test) - log_normalizer - toy(TOY).log_density(test)
    return {
        "mse": float(np.mean(error**2)),
        "standard error": float(np.std(error**2) / math.sqrt(NUM_TEST)),
        "mean error": float(np.mean(error)),
        "boundary mass": boundary_mass,
    }


def run(
    host: Any,
    seed: int,
    *,
    objective: str,
    num_steps: int,
    width: int = WIDTH,
    learning_rate: float = LEARNING_RATE,
    decay: float = DECAY,
    grid_size: int = 600,
) -> dict[str, float]:
    host.seed(seed)
    start = {"energy": host.mlp(2, None, width, DEPTH, activation="softplus")}
    blocks = np.split(plane.batches(TOY, num_steps, BATCH_SIZE, seed), max(num_steps // 1000, 1))
    nets = train_all(
        inference(host, objective, num_steps, learning_rate), start, blocks, decay=decay
    )
    log_density = plane.log_density(host, nets["energy"], BASE_SCALE)
    return mean_squared_error(log_density, seed, grid_size)
