"""Generalized energy-based models in the plane, with Pyro.

Run: ``python tests/benchmarks/generalized_pyro.py``
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from generalized import (
    BASE_WIDTH,
    BATCH_SIZE,
    BETAS,
    CENTER,
    CHAIN_STEPS,
    CIRCLE_COLUMNS,
    CIRCLES,
    NUM_DRAWS,
    POOL_SIZE,
    STEP_SIZE,
    TILT_COLUMNS,
    TILTS,
    WIDTH,
    Setting,
    batches,
    circle_cells,
    compare,
    kale,
    on_circle,
    print_tables,
    tilt_cells,
)
from pyro.infer import SVI
from pyro.optim import PyroLRScheduler
from resumable import output_path, run_cells
from torch import nn

import pyro_ebm.pyro as ebm


class Circle(nn.Module):
    """From angles to the unit circle about a center."""

    def __init__(self, center: tuple[float, float]) -> None:
        super().__init__()
        self.center = nn.Parameter(torch.tensor(center))

    def forward(self, angle: torch.Tensor) -> torch.Tensor:
        return self.center + torch.stack([angle.cos(), angle.sin()], dim=-1)


def mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    first, second = nn.Linear(inputs, width), nn.Linear(width, width)
    return nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), nn.Linear(width, outputs))


def train(base: nn.Module, latent: Any, name: str, setting: Setting, seed: int) -> nn.Module:
    """The energy, trained together with the base on the circle or a toy."""
    pyro.clear_param_store()
    energy = nn.Sequential(mlp(2, WIDTH, 1), nn.Flatten(0))

    def model(x: torch.Tensor) -> None:
        pyro.module("energy", energy)
        pyro.module("base", base)
        with pyro.plate("data", len(x)):
            prior = ebm.EnergyBased(energy, ebm.Pushforward(latent, base))
            pyro.sample("x", prior, obs=x)

    def options(parameter: str) -> dict[str, Any]:
        player = parameter.split(".")[0]
        condition = {"condition": setting.base_moves} if player == "base" else {}
        return {"lr": setting.rates[player], "betas": BETAS, **condition}

    scheduled = {"optimizer": ebm.step_when(torch.optim.Adam), "optim_args": options}
    optimizer = PyroLRScheduler(
        torch.optim.lr_scheduler.CosineAnnealingLR, {**scheduled, "T_max": setting.num_steps}
    )
    objective = ebm.KALE(num_base_samples=BATCH_SIZE, gradient_penalty=setting.gradient_penalty)
    svi = SVI(model, lambda x: None, optimizer, ebm.EnergyELBO(objective, num_normalizer_samples=0))
    for batch in torch.as_tensor(batches(name, setting.num_steps, seed)):
        svi.step(batch)
        optimizer.step()
    return energy.requires_grad_(requires_grad=False)


def run_circle(seed: int, settings: Mapping[str, Setting] = CIRCLES) -> dict[str, float]:
    """Distance of the base from the data and their KALE, at the start and at the end."""
    pyro.set_rng_seed(seed)
    data, figures = torch.as_tensor(on_circle(POOL_SIZE, 10_000 + seed)).float(), {}
    for time, setting in settings.items():
        angle, circle = dist.Uniform(-np.pi, np.pi), Circle(CENTER)
        energy = train(circle, angle, "circle", setting, seed)
        draws = ebm.Pushforward(angle, circle).sample((POOL_SIZE,))
        figures[f"distance, {time}"] = circle.center.norm().item()
        figures[f"kale, {time}"] = kale(energy(data).numpy(), energy(draws).numpy()).value
    return figures


def run_tilt(name: str, dimension: int, setting: Setting, seed: int) -> dict[str, float]:
    """How close base and model come to the data."""
    pyro.set_rng_seed(seed)
    net, latent = mlp(dimension, BASE_WIDTH, 2), dist.Normal(torch.zeros(dimension), 1.0)
    energy = train(net, latent.to_event(1), name, setting, seed)
    base = ebm.Pushforward(latent.to_event(1), net.requires_grad_(requires_grad=False))
    pool = base.sample((POOL_SIZE,))
    model = ebm.EnergyBased(energy, base, sampler=ebm.MALA(STEP_SIZE, CHAIN_STEPS))
    walked = model.sample((NUM_DRAWS,))
    return compare(
        name,
        seed,
        pool=pool.numpy(),
        walked=walked.numpy(),
        energy=lambda points: energy(torch.as_tensor(points)).numpy(),
    )


def run(name: str, dimension: int, stop: str, seed: int) -> dict[str, float]:
    return run_tilt(name, dimension, TILTS[stop], seed)


if __name__ == "__main__":
    torch.set_num_threads(1)
    path = output_path("generalized_pyro")
    circles = run_cells(circle_cells(), run_circle, path, columns=CIRCLE_COLUMNS)
    print_tables(circles, run_cells(tilt_cells(), run, path, columns=TILT_COLUMNS))
