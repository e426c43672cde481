"""Bounds of log Z along whole training runs, with Pyro.

Run: ``python tests/benchmarks/bounds_sandwich_pyro.py``
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import bounds_sandwich as settings
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from bounds_planes import bounds
from bounds_planes_pyro import sides
from pyro.infer import SVI
from pyro.optim import PyroLRScheduler
from resumable import output_path, run_cells
from torch import Tensor, nn

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.objectives.generator import Partner


class Formula(nn.Module):
    """A function of parameters and an array that both hosts share."""

    def __init__(self, function: Callable[..., Tensor], parameters: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.function = function
        tensors = {name: nn.Parameter(torch.as_tensor(x)) for name, x in parameters.items()}
        self.parameters_by_name = nn.ParameterDict(tensors)

    def forward(self, value: Tensor) -> Tensor:
        return self.function(self.parameters_by_name, value)


class Players(NamedTuple):
    energy: nn.Module
    generator: nn.Module


def players_of(case: settings.Case) -> Players:
    dimension, width = case.dimension, settings.WIDTH
    generator = Formula(settings.generate, settings.generator_parameters(dimension))
    if case.convex:
        energy = Formula(settings.convex_energy, settings.energy_parameters(dimension))
        return Players(energy, generator)
    first, second = nn.Linear(dimension, width), nn.Linear(width, width)
    layers = first, nn.SiLU(), second, nn.SiLU(), nn.Linear(width, 1), nn.Flatten(0)
    return Players(nn.Sequential(*layers).double(), generator)


def normal(dimension: int, scale: float) -> Any:
    return dist.Normal(torch.zeros(dimension, dtype=torch.float64), scale).to_event(1)


def density(players: Players, case: settings.Case) -> ebm.EnergyBased:
    return ebm.EnergyBased(players.energy, normal(case.dimension, 3.0))


def pushforward(players: Players, case: settings.Case) -> ebm.Pushforward:
    return ebm.Pushforward(normal(case.dimension, 1.0), players.generator)


def inference(players: Players, case: settings.Case) -> tuple[SVI, Any]:
    """What trains, and the schedule."""

    def model(x: Tensor) -> None:
        pyro.module("energy", players.energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", density(players, case), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("generator", players.generator)
        ebm.auxiliary("x", generator=pushforward(players, case))

    arguments = {
        "optimizer": torch.optim.Adam,
        "optim_args": {"lr": settings.LEARNING_RATE, "betas": settings.BETAS},
        "T_max": case.num_steps,
    }
    optimizer = PyroLRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR, arguments)
    return SVI(model, guide, optimizer, settings.loss(ebm, case)), optimizer


def look_at(players: Players, case: settings.Case) -> dict[str, float]:
    model, generator = density(players, case), pushforward(players, case)
    found = sides(model, generator, settings.NUM_DRAWS)
    partner = Partner.of(model, generator)

    def slope(z: np.ndarray) -> np.ndarray:
        return partner.compare(model, torch.as_tensor(z)).slope.numpy()

    arrays = {name: found[name].numpy() for name in ("log_ratios", "half_squares")}
    log_z = ebm.log_normalizer(model, method="grid")
    return settings.look(case, log_z, bounds(**arrays), slope)


def train(case: settings.Case, seed: int) -> list[dict[str, float]]:
    """What is seen from the start of a run to its end."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    players = players_of(case)
    svi, schedule = inference(players, case)
    looks = [look_at(players, case)]
    data = torch.as_tensor(settings.batches(case, case.num_steps, seed))
    for block in data.chunk(settings.NUM_LOOKS):
        for batch in block:
            svi.step(batch)
            schedule.step()
        looks.append(look_at(players, case))
    return looks


def run(case: str, seed: int) -> dict[str, Any]:
    return settings.summarize(train(settings.CASES[case], seed))


if __name__ == "__main__":
    torch.set_num_threads(1)
    path = output_path("bounds_sandwich_pyro")
    settings.print_tables(run_cells(settings.cells(), run, path, columns=settings.COLUMNS))
