"""Held-out likelihood of flows on two real tables, the paper's table; what both hosts share.

Arbel et al. (2021) train affine coupling flows d by four methods, and report -log d on unseen rows:

ML       by likelihood;
CD       as if -log d were an energy with an unknown normalizer;
KALE-DV  as the product of a base g, a second flow that is trained by likelihood, and the energy
KALE-F   E(x) = log g(x) - log d(x) + c, with g held constant in it: exp(-E) g is exp(-c) d, so
         the log-normalizer is -c exactly, whatever d and g are, and the model's density is d.
         d starts as a copy of g: few draws of g would count for a flow far from it. Where that
         does not suffice, g is fitted first, as by ML, and kept as it is (``staged``).

Each run keeps the flow of the step that is best on the rows for validation, looked at once every
``EVERY`` steps. The authors took the best step on the *test* rows, of one run: their figures are
optimistic. Rates fall to zero along a half cosine; decay is AdamW's, towards zero weights.

Reported beside it: where the log-normalizer is ``estimated`` from draws of g at the step that is
kept, with a standard error, and what KALE-F has ``learned`` it to be.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pyro_ebm.datasets import Table, parkinsons, red_wine

TABLES: dict[str, Callable[[], Table]] = {"red wine": red_wine, "parkinsons": parkinsons}
METHODS = ("ML", "CD", "KALE-DV", "KALE-F")
SEEDS = (0, 1, 2, 3, 4)  # of weights and batches; the split is the authors'
NUM_LAYERS, WIDTH, DEPTH = 5, 100, 2  # of a flow, and of the network of each layer
BATCH_SIZE, EVERY = 100, 25
OFFSET = 1.0  # c
NUM_NORMALIZER_SAMPLES = 5000
AUTHORS = {  # Best on the test rows; at the end, ML has 100.2 and 105.3.
    "ML": (11.81, 13.56),
    "CD": (12.84, 15.72),
    "KALE-DV": (11.60, 13.29),
    "KALE-F": (12.10, 14.83),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a flow is trained.

    Attributes:
        num_steps: Of batches.
        learning_rate: Of d, at the start; ten times that of the learned log-normalizer.
        weight_decay: Of d.
        base_learning_rate: Of g.
        base_weight_decay: Of g.
        num_base_samples: Draws of g in each step.
        gradient_penalty: On the slope of the energy.
        sampler_step_size: Of the Langevin steps of CD, half the variance of their noise; the
            authors have .005.
        num_sampler_steps: Of these, from data.
        staged: Whether g is what ML gives, with its setting, and does not move.
    """

    num_steps: int
    learning_rate: float
    weight_decay: float = 0.0
    base_learning_rate: float = 3e-3
    base_weight_decay: float = 0.7
    num_base_samples: int = 200
    gradient_penalty: float = 0.1
    sampler_step_size: float = 0.005
    num_sampler_steps: int = 10
    staged: bool = False


_WINE_PAIR = Setting(
    num_steps=3000,
    learning_rate=2e-3,
    base_learning_rate=1e-5,
    base_weight_decay=0.0,
    num_base_samples=1000,
    gradient_penalty=0.02,
)
_PARKINSONS_PAIR = replace(_WINE_PAIR, num_steps=1000, learning_rate=1e-3, staged=True)
# Chosen on validation rows, by one run each (NumPyro, seed 100). Red wine, ML: rates 1e-3 to 3e-3
# and decays 0 to 5, 12.47 to 13.6. Red wine, KALE-DV with 200 draws: 12.8 to 13.6; with 1,000 and a
# slow base, as the authors have it, penalties .1 and .02 after 1,500 steps 13.08 and 12.72, after
# 3,000 12.49 (as here); with a base at a tenth of its own best rate 12.52 to 12.58. Parkinsons, ML:
# 12.52 to 12.78; KALE-DV with a slow base 13.59, with faster ones 13.18 to 14.30, staged 12.51 to
# 12.52, and KALE-F with the same. Red wine, KALE-F: 12.56 to 13.18 in seven tries (the settings of
# KALE-DV 12.74, a slower d as here 12.56). CD: on red wine 14.29 to 15.95 in ten tries, best
# where chains go far and d slowly; on Parkinsons 17.1 to 17.7 in six, best with the smallest steps.
SETTINGS = {
    "red wine": {
        "ML": Setting(num_steps=1500, learning_rate=3e-3, weight_decay=0.7),
        "CD": Setting(
            num_steps=750, learning_rate=3e-4, sampler_step_size=0.02, num_sampler_steps=30
        ),
        "KALE-DV": _WINE_PAIR,
        "KALE-F": replace(_WINE_PAIR, learning_rate=1e-3),
    },
    "parkinsons": {
        "ML": Setting(num_steps=3000, learning_rate=3e-3, weight_decay=0.1),
        "CD": Setting(num_steps=1500, learning_rate=3e-4, sampler_step_size=0.001),
        "KALE-DV": _PARKINSONS_PAIR,
        "KALE-F": _PARKINSONS_PAIR,
    },
}
COLUMNS = ["test", "validation", "train", "step", "last"]


def rate(setting: Setting, player: str) -> tuple[float, float]:
    """Learning rate and weight decay of ``density``, ``base`` or ``log_normalizer``."""
    if player == "log_normalizer":
        return 10 * setting.learning_rate, 0.0
    if player == "base" and setting.staged:
        return 0.0, 0.0
    if player == "base":
        return setting.base_learning_rate, setting.base_weight_decay
    return setting.learning_rate, setting.weight_decay


def loss(ebm: Any, method: str, setting: Setting) -> Any:
    """For ``SVI``, of a host's front end; stock for ML."""
    if method == "CD":
        sampler = ebm.Langevin(setting.sampler_step_size, num_steps=setting.num_sampler_steps)
        objective = ebm.ContrastiveDivergence(sampler=sampler, start="data")
    else:
        objective = ebm.KALE(
            form="fenchel" if method == "KALE-F" else "donsker_varadhan",
            num_base_samples=setting.num_base_samples,
            gradient_penalty=setting.gradient_penalty,
            base_loss="likelihood",
        )
    return ebm.EnergyELBO(objective, num_normalizer_samples=0)


def batches(num_rows: int, num_steps: int, seed: int) -> np.ndarray:
    """Rows of each step, ``(num_steps // EVERY, EVERY, BATCH_SIZE)``: epochs without remainders."""
    rng, size = np.random.default_rng(seed), num_rows - num_rows % BATCH_SIZE
    num_epochs = -(-num_steps * BATCH_SIZE // size)
    rows = np.concatenate([rng.permutation(num_rows)[:size] for _ in range(num_epochs)])
    return rows[: num_steps * BATCH_SIZE].reshape(-1, EVERY, BATCH_SIZE)


def cells() -> list[dict[str, Any]]:
    return [
        {"table": table, "method": method, "seed": seed}
        for seed in SEEDS
        for table in TABLES
        for method in METHODS
    ]


def print_table(rows: list[dict[str, Any]]) -> None:
    """Mean over seeds and, in brackets, its standard error, beside the authors' figures."""
    print("\nmean -log d on test rows".ljust(26) + "".join(f"{name:>28s}" for name in TABLES))
    for method in METHODS:
        line = f"{method:25s}"
        for name, published in zip(TABLES, AUTHORS[method], strict=True):
            own = {"table": name, "method": method}
            values = [row["test"] for row in rows if own.items() <= row["cell"].items()]
            error = np.std(values, ddof=1) / np.sqrt(len(values))
            line += f"{np.mean(values):8.3f} ({error:.3f}), {published:.2f}".rjust(28)
        print(line)
