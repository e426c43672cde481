"""Energies trained with bidirectional bounds in the plane, and without, with Pyro and zuko.

Run: ``python tests/benchmarks/bounds_planes_pyro.py``
"""

from typing import Any, NamedTuple

import bounds_planes as settings
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from planes import batches
from planes_pyro import density, mlp
from pyro.infer import SVI
from pyro.optim import PyroLRScheduler
from resumable import output_path, run_cells
from torch import Tensor, nn
from zuko.flows import NSF
from zuko.lazy import LazyTransform

import pyro_ebm.pyro as ebm
from pyro_ebm.core.objectives.bidirectional_bounds import half_square
from pyro_ebm.pyro.objectives.generator import Partner

pyro.enable_validation()  # zuko switches it off in all of torch.


class Players(NamedTuple):
    energy: nn.Module
    flow: LazyTransform


def untrained_flow() -> LazyTransform:
    """Splines, the second coordinate's given the first and the other way round in turn."""
    hidden = {"hidden_features": (settings.FLOW_WIDTH,), "activation": nn.SiLU}
    return NSF(2, bins=settings.KNOTS, transforms=settings.NUM_LAYERS, **hidden).transform


def generator_of(players: Players) -> ebm.Pushforward:
    """A flow from the latent to values, which is the way that is one pass."""
    return ebm.Pushforward(dist.Normal(torch.zeros(2), 1.0).to_event(1), players.flow())


def inference(players: Players, setting: settings.Setting, num_steps: int) -> tuple[SVI, Any]:
    """What trains, and the schedule."""

    def model(x: Tensor) -> None:
        pyro.module("energy", players.energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", density(players.energy), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("flow", players.flow)
        ebm.auxiliary("x", generator=generator_of(players))

    arguments = {
        "optimizer": torch.optim.Adam,
        "optim_args": {"lr": setting.learning_rate, "betas": settings.BETAS},
        "T_max": num_steps,
    }
    optimizer = PyroLRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR, arguments)
    return SVI(model, guide, optimizer, settings.loss(ebm, setting)), optimizer


def sides(model: ebm.EnergyBased, generator: Any, num_draws: int) -> dict[str, Tensor]:
    """Draws of a generator, and what it says of log Z."""
    partner = Partner.of(model, generator)
    compared = partner.compare(model, partner.draw(num_draws))
    return {
        "draws": compared.value,
        "at_draws": model.evaluate(compared.value),
        "log_ratios": compared.log_ratio,
        "half_squares": half_square(compared.slope),
    }


def look_at(players: Players, toy: str, test: np.ndarray) -> dict[str, float]:
    model, x = density(players.energy), torch.as_tensor(test)
    found = sides(model, generator_of(players), settings.NUM_DRAWS)
    found |= {"at_test": model.evaluate(x), "log_base": model.base.log_prob(x)}
    arrays = {name: part.detach().numpy() for name, part in found.items()}
    return settings.look(toy, log_z=ebm.log_normalizer(model, method="grid"), **arrays)


def train(toy: str, setting: settings.Setting, seed: int, num_steps: int) -> list[dict[str, float]]:
    """What was seen of a run up to its end or failure."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    players = Players(mlp(), untrained_flow())
    svi, schedule = inference(players, setting, num_steps)
    test = settings.fresh_points(toy, seed)
    data = torch.as_tensor(batches(toy, num_steps, seed))
    looks = [look_at(players, toy, test)]
    for block in data.chunk(settings.NUM_LOOKS):
        try:
            for batch in block:
                svi.step(batch)
                schedule.step()
        except ValueError:
            break
        looks.append(look_at(players, toy, test))
    return looks


def run(toy: str, method: str, seed: int) -> dict[str, Any]:
    looks = train(toy, settings.SETTINGS[method], seed, settings.NUM_STEPS)
    return settings.summarize(toy, settings.fresh_points(toy, seed), looks)


if __name__ == "__main__":
    torch.set_num_threads(1)
    path = output_path("bounds_planes_pyro")
    settings.print_tables(run_cells(settings.cells(), run, path, columns=settings.COLUMNS))
