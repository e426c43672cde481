"""Contrastive divergence with default settings, on two moons of three sizes.

Moons of radius `size` and noise of `size` / 10; the base is normal with a standard deviation of
5 `size`, the net has two hidden layers of 128 and sees x in units of the data's standard
deviation. 1,500 steps of Adam at a constant rate of 2e-3, on fresh batches of 256. `default` is
`ContrastiveDivergence()`, 20 steps of MALA from the data, whose step size follows its acceptance;
the others are 20 steps from the data of Langevin with its own step size. `log-likelihood` is that
of 10,000 fresh points, normalized on a grid; `truth` that of the density itself, by a sum over
angles.
"""

from functools import cache
from typing import Any

import numpy as np

from evidence import plane
from evidence.hosts import Adam, train_all
from pyro_ebm.datasets import toy

FIGURES = ("log-likelihood", "truth")
SIZES = (0.2, 1.0, 5.0)
# Standard deviation of the moons, of both coordinates together, in units of their radius.
DATA_SCALE = 0.71
STEP_SIZES = {"default": None, "Langevin, 0.05": 0.05, "Langevin, 0.002": 0.002}
NUM_STEPS, BATCH_SIZE, WIDTH, DEPTH = 1500, 256, 128, 2
# Steps over which the rate falls: it stays.
CONSTANT = 10**9
CELLS = [{"size": size, "sampler": sampler} for size in SIZES for sampler in STEP_SIZES]
QUICK = {"size": 0.2, "sampler": "default", "num_steps": 20, "grid_size": 80}


def points(size: float, number: int, seed: int) -> np.ndarray:
    """Draw from moons of a radius; those of the toy have radius 2."""
    return size / 2 * toy("two_moons").sample(number, seed=seed)


def true_log_density(x: np.ndarray, size: float, num_angles: int = 1000) -> np.ndarray:
    """Log-density of the moons, summed over angles."""
    angles = np.pi * (np.arange(num_angles) + 0.5) / num_angles
    upper = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    centers = size * (np.concatenate([upper, [1.0, 0.5] - upper]) - [0.5, 0.1])
    squares = ((x[:, None] - centers) ** 2).sum(-1) / (0.1 * size) ** 2
    terms = -squares / 2 - np.log(2 * np.pi * (0.1 * size) ** 2 * len(centers))
    return np.logaddexp.reduce(terms, axis=1)


def rescaled(net: Any, size: Any, x: Any) -> Any:
    return net(x / (DATA_SCALE * size))


def density(host: Any, net: Any, size: float) -> Any:
    return host.ebm.EnergyBased(host.bind(rescaled, net, size), host.normal(2, scale=5 * size))


@cache
def inference(host: Any, size: float, sampler: str) -> Any:
    step_size = STEP_SIZES[sampler]
    options = {} if step_size is None else {"sampler": host.ebm.Langevin(step_size)}
    objective = host.ebm.ContrastiveDivergence(**options)
    loss = host.ebm.EnergyELBO(objective, num_normalizer_samples=0)

    def model(nets: Any, x: Any) -> None:
        with host.plate("data", len(x)):
            host.sample("x", density(host, nets["energy"], size), obs=x)

    return host.Inference(model, lambda nets, x: None, loss, Adam(2e-3), CONSTANT)


def run(
    host: Any,
    seed: int,
    *,
    size: float,
    sampler: str,
    num_steps: int = NUM_STEPS,
    grid_size: int = 800,
) -> dict[str, float]:
    host.seed(seed)
    nets = {"energy": host.mlp(2, None, WIDTH, DEPTH)}
    batches = points(size, num_steps * BATCH_SIZE, seed).reshape(num_steps, BATCH_SIZE, 2)
    training = inference(host, size, sampler)
    nets = train_all(training, nets, [batches.astype(np.float32)])

    def log_prob(net: Any, x: Any) -> Any:
        return density(host, net, size).log_prob(x)

    def scaled(x: np.ndarray) -> np.ndarray:
        points = (size * x).astype(np.float32)
        return host.evaluate(log_prob, nets["energy"], points).astype(np.float64)

    log_density = plane.in_blocks(scaled)
    # Three standard deviations of the base to each side.
    log_normalizer, _ = plane.normalize(log_density, limit=15.0, size=grid_size)
    test = points(size, 10_000, 10_000 + seed)
    found = log_density(test / size) - log_normalizer - 2 * np.log(size)
    truth = np.concatenate([true_log_density(part, size) for part in np.split(test, 20)])
    return {"log-likelihood": float(found.mean()), "truth": float(truth.mean())}
