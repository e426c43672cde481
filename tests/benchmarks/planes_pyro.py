"""Nine objectives on three toys in the plane, with Pyro.

Run: ``python tests/benchmarks/planes_pyro.py``
"""

from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from planes import (
    BASE_SCALE,
    BUDGET,
    DEPTH,
    SETTINGS,
    WIDTH,
    batches,
    cells,
    chains,
    print_tables,
    score,
)
from pyro.infer import SVI
from pyro.optim import PyroLRScheduler
from resumable import output_path, run_cells
from torch import nn

import pyro_ebm.pyro as ebm


def mlp() -> nn.Module:
    layers: list[nn.Module] = []
    sizes = [2] + DEPTH * [WIDTH]
    for before, after in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 1), nn.Flatten(0))


def density(energy: nn.Module) -> ebm.EnergyBased:
    return ebm.EnergyBased(energy, dist.Normal(torch.zeros(2), BASE_SCALE).to_event(1))


def train(
    toy: str, objective: str, seed: int, budget: int, *, energy: nn.Module, critic: nn.Module
) -> None:
    setting = SETTINGS[objective]
    num_steps = setting.num_steps(budget)

    def model(x: torch.Tensor) -> None:
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", density(energy), obs=x)

    def guide(x: torch.Tensor) -> None:
        if setting.critic:
            ebm.auxiliary("x", critic=critic)
        if setting.chains:
            ebm.auxiliary("x", chains=chains(ebm))

    optimizer = PyroLRScheduler(
        torch.optim.lr_scheduler.CosineAnnealingLR,
        {
            "optimizer": torch.optim.Adam,
            "optim_args": {"lr": setting.learning_rate},
            "T_max": num_steps,
        },
    )
    loss = ebm.EnergyELBO(setting.objective(ebm), num_normalizer_samples=0)
    svi = SVI(model, guide, optimizer, loss)
    for batch in torch.as_tensor(batches(toy, num_steps, seed)):
        svi.step(batch)
        optimizer.step()


def log_density(energy: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """Of points as NumPy has them, up to a constant."""

    @torch.no_grad()
    def of_points(points: np.ndarray) -> np.ndarray:
        return density(energy).log_prob(torch.as_tensor(points)).double().numpy()

    return of_points


def run(toy: str, objective: str, seed: int) -> dict[str, float]:
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    energy, critic = mlp(), mlp()
    train(toy, objective, seed, BUDGET, energy=energy, critic=critic)
    return score(log_density(energy), toy, seed)


if __name__ == "__main__":
    torch.set_num_threads(1)
    columns = ["log-likelihood", "difference", "boundary mass"]
    print_tables(run_cells(cells(), run, output_path("planes_pyro"), columns=columns))
