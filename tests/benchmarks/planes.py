"""Nine objectives on three toys in the plane; what both hosts share.

Every objective trains the same net from the same base with the same number of *evaluations*, so
that a dearer step means fewer steps. One evaluation is the energy or the critic at one point, with
its slope there where a sampler or a loss needs it; a product with the Hessian counts as one more.
Differentiating a loss in the parameters is not counted, although it costs score matching, whose
losses have slopes in them, about twice what it costs the others: the seconds show that. Nor is
the energy of each value for the number that `SVI` reports, which no gradient depends on.

For each value, energy discrepancy with M negatives takes M + 1 evaluations; k steps of a chain
take k + 1, the first slope included, and the energies of value and negative 2 more; a critic takes
2 more; sliced score matching 1 and a product; denoising 1. Batches are fresh draws. Adam's
learning rates fall to zero along a half cosine.

Reported is the mean log-density of fresh points under the model, normalised on a grid, and how
far it is above that under the true density, which is minus the divergence KL(truth, model).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gaussians_25 import normalize

from pyro_ebm.datasets import toy

TOYS = ("two_spirals", "checkerboard", "25_gaussians")
SEEDS = (0, 1, 2)
BUDGET = 2_000_000
WIDTH, DEPTH = 128, 3  # of the nets of energy and critic alike: SiLU, PyTorch's initial weights
BASE_SCALE = 3.0  # standard deviation of the normal base
BATCH_SIZE, NUM_NEGATIVES = 128, 4
STEP_SIZE, NUM_STEPS = 0.02, 5  # of the chains
BUFFER_SIZE, RESTART_PROBABILITY = 256, 0.01
ENERGY_PENALTY = 0.01  # of all that draw from the model: without it energies run away


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How an objective is trained.

    Attributes:
        objective: Makes it, of a host's front end.
        evaluations: What it takes of the budget for each value.
        learning_rate: Of energy and critic, at the start.
        chains: Whether it has persistent chains.
        critic: Whether it has a critic.
    """

    objective: Callable[[Any], Any]
    evaluations: int
    learning_rate: float = 3e-3
    chains: bool = False
    critic: bool = False

    def num_steps(self, budget: int) -> int:
        return round(budget / (BATCH_SIZE * self.evaluations))


def sampler(ebm: Any) -> Any:
    return ebm.MALA(STEP_SIZE, num_steps=NUM_STEPS)


def chains(ebm: Any) -> Any:
    return ebm.PersistentChains(
        BATCH_SIZE,
        (2,),
        sampler=sampler(ebm),
        buffer_size=BUFFER_SIZE,
        restart_probability=RESTART_PROBABILITY,
    )


def f_ebm(divergence: str, learning_rate: float = 3e-3) -> Setting:
    return Setting(
        objective=lambda ebm: ebm.FDivergence(
            divergence,
            gradient="covariance",
            log_ratio_bound=5.0,
            energy_penalty=ENERGY_PENALTY,
        ),
        evaluations=NUM_STEPS + 5,
        learning_rate=learning_rate,
        chains=True,
        critic=True,
    )


# Three settings were tried for each objective, with NumPyro on the two spirals, seed 100, a quarter
# of the budget; the difference from the truth that each came to:
# - energy discrepancy, variance and rate: .5, 1e-3 -.39; .5, 3e-3 -.21; .1, 3e-3 -.18
# - contrastive divergence, rate: 3e-4 -.99; 1e-3 -.76; 3e-3 -.35; persistent -1.15; -.80; -5.92
# - sliced score matching, rate: 3e-4 -.89; 1e-3 -.81; 3e-3 -.63
# - denoising, variance and rate: .01, 1e-3 -.23; .01, 3e-3 -.10; .0025, 3e-3 -.17
# - f-EBM, rates of energy and critic: 1e-3 both; 1e-3 and 3e-3; 3e-3 both. KL -1.00; -.92; -.88,
#   Jensen-Shannon -1.06; -.98; -.87, squared Hellinger -1.13; -1.01; -.94,
#   reverse KL -2.03; -6.50; -41. (The full gradient, 1e-3 both: KL -54, Jensen-Shannon -4.4.)
# What all chains share was tried on persistent contrastive divergence. A quarter of the budget:
# step .02 -.80; .05 -.84; 10 steps of .02 -.92; 10 of Langevin, .005 -.99. The whole of it:
# restarts .05 -1e6; .01 -3296; Langevin, .01 -68; energy penalty .01 -.32, with Langevin -4.9;
# energy penalty .001 -.42.
SETTINGS = {
    "energy discrepancy": Setting(
        objective=lambda ebm: ebm.EnergyDiscrepancy(variance=0.1, num_negatives=NUM_NEGATIVES),
        evaluations=NUM_NEGATIVES + 1,
    ),
    "contrastive divergence": Setting(
        objective=lambda ebm: ebm.ContrastiveDivergence(
            sampler=sampler(ebm), start="data", energy_penalty=ENERGY_PENALTY
        ),
        evaluations=NUM_STEPS + 3,
    ),
    "persistent contrastive divergence": Setting(
        objective=lambda ebm: ebm.ContrastiveDivergence(energy_penalty=ENERGY_PENALTY),
        evaluations=NUM_STEPS + 3,
        learning_rate=1e-3,
        chains=True,
    ),
    "sliced score matching": Setting(
        objective=lambda ebm: ebm.ScoreMatching("sliced"),
        evaluations=2,
    ),
    "denoising score matching": Setting(
        objective=lambda ebm: ebm.ScoreMatching("denoising", variance=0.01),
        evaluations=1,
    ),
    "f-EBM, KL": f_ebm("kl"),
    "f-EBM, Jensen-Shannon": f_ebm("jensen_shannon"),
    "f-EBM, squared Hellinger": f_ebm("squared_hellinger"),
    "f-EBM, reverse KL": f_ebm("reverse_kl", learning_rate=1e-3),
}


def batches(name: str, num_steps: int, seed: int) -> np.ndarray:
    """Fresh draws for every step, shape ``(num_steps, BATCH_SIZE, 2)``."""
    points = toy(name).sample(num_steps * BATCH_SIZE, seed=seed)
    return points.reshape(num_steps, BATCH_SIZE, 2).astype(np.float32)


def score(
    log_density: Callable[[np.ndarray], np.ndarray],
    name: str,
    seed: int,
    *,
    num_test: int = 10_000,
    grid_size: int = 640,
) -> dict[str, float]:
    """Figures of a model on fresh points of a toy.

    Args:
        log_density: Maps points ``(N, 2)`` to ``(N,)``, up to a constant.
        name: Of the toy.
        seed: Of the test points.
        num_test: How many there are.
        grid_size: Cells of the grid along each axis, from -8 to 8.
    """

    def in_blocks(points: np.ndarray) -> np.ndarray:
        size = 12_800  # a share of the grid: JAX compiles for each shape
        blocks = [points[i : i + size] for i in range(0, len(points), size)]
        return np.concatenate([log_density(block.astype(np.float32)) for block in blocks])

    log_normalizer, boundary_mass = normalize(in_blocks, limit=8.0, size=grid_size)
    test = toy(name).sample(num_test, seed=10_000 + seed)
    model, truth = in_blocks(test) - log_normalizer, toy(name).log_density(test)
    return {
        "log-likelihood": float(np.mean(model)),
        "truth": float(np.mean(truth)),
        "difference": float(np.mean(model - truth)),
        "boundary mass": boundary_mass,
    }


def cells() -> list[dict]:
    return [
        {"toy": name, "objective": objective, "seed": seed}
        for name in TOYS
        for objective in SETTINGS
        for seed in SEEDS
    ]


def print_tables(rows: list[dict]) -> None:
    """Objective by toy: mean over seeds and, in brackets, its standard error."""
    for figure in ("log-likelihood", "difference"):
        print(f"\n{figure:36s}" + "".join(f"{name:>18s}" for name in TOYS))
        if figure == "log-likelihood":
            _print_line("truth", rows, "truth")
        for objective in SETTINGS:
            own = [row for row in rows if row["cell"]["objective"] == objective]
            _print_line(objective, own, figure)


def _print_line(label: str, rows: list[dict], figure: str) -> None:
    line = f"{label:36s}"
    for name in TOYS:
        # The truth is the same for all objectives: one value for each seed.
        cells = [row for row in rows if row["cell"]["toy"] == name]
        values = list({row["cell"]["seed"]: row[figure] for row in cells}.values())
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        line += f"{np.mean(values):9.3f} ({error:.3f})".rjust(18)
    print(line)
