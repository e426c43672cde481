"""Couplings of the Ising model from draws, by pseudo-likelihood.

Spins on a periodic lattice, p(s) proportional to exp(s'Js), with J = strength times the adjacency
matrix; 2,000 draws by 500 sweeps of Gibbs sampling from independent starts. The energy is -s'Js
with a free symmetric J, trained by energy discrepancy with one masked spin and its exact sum
(`MaskOne(exact=True)`, which is pseudo-likelihood), 128 draws at a time, with a penalty on the sum
of |J|: the one of three whose pseudo-likelihood is best on 2,000 further draws (which the published
methods did not have). Adam's rate falls to zero along half a cosine.

`-log RMSE` is that of all entries of J; `zero` stands beside it: the same for J = 0. Published for
energy discrepancy with flips / contrastive divergence by Gibbs sampling (Schröder et al., 2023,
Training Discrete Energy-Based Models with Energy Discrepancy): 10 x 10 at .1, .2, .3: 5.1 / 4.8,
4.0 / 4.7, 2.9 / 3.4; 9 x 9 at -.1, -.2: 5.1 / 4.8, 4.3 / 4.7. Beyond .3 no published figure is far
from that of J = 0.
"""

from functools import cache
from typing import Any

import numpy as np

from evidence.hosts import Adam, fair_bits, no_guide

FIGURES = ("-log RMSE", "zero", "penalty")
NUM_DRAWS, NUM_SWEEPS = 2000, 500
BATCH_SIZE, NUM_STEPS, RATE = 128, 600, 0.01
PENALTIES = (0.01, 0.03, 0.1)
CELLS = [
    *({"side": 10, "strength": strength} for strength in (0.1, 0.2, 0.3)),
    *({"side": 9, "strength": strength} for strength in (-0.1, -0.2)),
]
QUICK = {"side": 4, "strength": 0.1, "num_steps": 100, "penalties": (0.01,)}


def adjacency(side: int) -> np.ndarray:
    """Neighbors on a periodic lattice, shape `(side^2, side^2)`."""
    ring = np.roll(np.eye(side), 1, axis=0)
    ring = ring + ring.T
    return np.kron(ring, np.eye(side)) + np.kron(np.eye(side), ring)


@cache
def draws(side: int, strength: float, seed: int) -> np.ndarray:
    """Spins of -1 and 1, float32 of shape `(2 NUM_DRAWS, side^2)`."""
    rng, couplings = np.random.default_rng(seed), strength * adjacency(side)
    spins = rng.choice([-1.0, 1.0], size=(side**2, 2 * NUM_DRAWS))
    for _ in range(NUM_SWEEPS):
        for site, row in enumerate(couplings):
            odds = np.exp(-4.0 * (row @ spins))
            spins[site] = np.where(rng.random(2 * NUM_DRAWS) * (1 + odds) < 1, 1.0, -1.0)
    return spins.T.astype(np.float32)


def symmetric(couplings: Any, diagonal: Any) -> Any:
    """Return the couplings that an energy has: symmetric, none of a spin with itself."""
    return (couplings + couplings.T) / 2 * (1 - diagonal)


def energy(couplings: Any, bits: Any) -> Any:
    spins = 2.0 * bits - 1.0
    return -((spins @ couplings) * spins).sum(-1)


@cache
def inference(host: Any, num_spins: int, penalty: float, num_steps: int) -> Any:
    base, diagonal = fair_bits(host, num_spins), host.array(np.eye(num_spins, dtype=np.float32))

    def model(nets: Any, bits: Any) -> None:
        couplings = symmetric(nets["couplings"], diagonal)
        # The objective is a mean over spins.
        host.factor("penalty", -len(bits) / num_spins * penalty * abs(couplings).sum())
        with host.plate("draws", len(bits)):
            host.sample("x", host.ebm.EnergyBased(host.bind(energy, couplings), base), obs=bits)

    objective = host.ebm.EnergyDiscrepancy(perturbation=host.ebm.MaskOne(exact=True))
    loss = host.ebm.EnergyELBO(objective, num_normalizer_samples=0)
    return host.Inference(model, no_guide, loss, Adam(RATE), num_steps)


def fit(host: Any, spins: np.ndarray, penalty: float, seed: int, num_steps: int) -> np.ndarray:
    host.seed(seed)
    num_spins, rng = spins.shape[1], np.random.default_rng(seed)
    nets = {"couplings": host.array(np.zeros((num_spins, num_spins), np.float32))}
    rows = rng.integers(len(spins), size=(num_steps, BATCH_SIZE))
    batches = ((spins[rows] + 1) / 2).astype(np.float32)
    training = inference(host, num_spins, penalty, num_steps)
    for trained, _ in training.train(nets, [batches]):
        nets = trained
    return symmetric(np.asarray(nets["couplings"]), np.eye(num_spins))


def pseudo_likelihood(couplings: np.ndarray, spins: np.ndarray) -> float:
    """Mean over draws of the log-probability of each spin given the others, summed."""
    return float(-np.logaddexp(0.0, -4.0 * spins * (spins @ couplings)).sum(-1).mean())


def run(
    host: Any,
    seed: int,
    *,
    side: int,
    strength: float,
    num_steps: int = NUM_STEPS,
    penalties: tuple[float, ...] = PENALTIES,
) -> dict[str, float]:
    truth = strength * adjacency(side)
    train, validation = np.split(draws(side, strength, seed), 2)
    fits = {penalty: fit(host, train, penalty, seed, num_steps) for penalty in penalties}
    chosen = max(fits, key=lambda penalty: pseudo_likelihood(fits[penalty], validation))
    return {
        "-log RMSE": error(fits[chosen], truth),
        "zero": error(np.zeros_like(truth), truth),
        "penalty": chosen,
    }


def error(couplings: np.ndarray, truth: np.ndarray) -> float:
    return -float(np.log(np.sqrt(np.mean((couplings - truth) ** 2))))
