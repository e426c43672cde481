"""Modes of stacked digits that a generator finds, with entropy and without, with Pyro.

Run: ``python tests/benchmarks/mode_counting_pyro.py [--data mnist.npz]``
"""

from typing import NamedTuple

import mode_counting as settings
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI
from pyro.optim import PyroLRScheduler
from resumable import run_cells
from torch import Tensor, nn

import pyro_ebm.pyro as ebm

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Players(NamedTuple):
    energy: nn.Module
    generator: nn.Module
    encoder: nn.Module


def players_of(setting: settings.Setting, num_pixels: int) -> Players:
    def mlp(inputs: int, outputs: int, final: nn.Module) -> nn.Module:
        width = setting.width
        layers = nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        return nn.Sequential(*layers, nn.Linear(width, outputs), final).to(DEVICE)

    return Players(
        energy=mlp(num_pixels, 1, nn.Flatten(0)),
        generator=mlp(setting.num_latents, num_pixels, nn.Sigmoid()),
        encoder=mlp(num_pixels, 2 * setting.num_latents, nn.Identity()),
    )


def normal(size: int, loc: float = 0.0, scale: float = 1.0) -> dist.TorchDistribution:
    return dist.Normal(torch.full((size,), loc, device=DEVICE), scale).to_event(1)


def inference(
    players: Players, setting: settings.Setting, entropy_weight: float
) -> tuple[SVI, PyroLRScheduler]:
    """What trains, and the schedule."""

    def model(x: Tensor) -> None:
        pyro.module("energy", players.energy)
        base = normal(x.shape[-1], *settings.BASE)
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(players.energy, base), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("generator", players.generator)
        pyro.module("encoder", players.encoder)
        latent, noise_scale = normal(setting.num_latents), setting.noise_scale
        source = ebm.Pushforward(latent, players.generator, noise_scale=noise_scale)
        ebm.auxiliary("x", generator=source, encoder=lambda x: posterior(players.encoder, x))

    arguments = {
        "optimizer": torch.optim.Adam,
        "optim_args": {"lr": setting.learning_rate, "betas": settings.BETAS},
        "T_max": setting.num_steps,
    }
    optimizer = PyroLRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR, arguments)
    return SVI(model, guide, optimizer, settings.loss(ebm, setting, entropy_weight)), optimizer


def posterior(encoder: nn.Module, x: Tensor) -> dist.TorchDistribution:
    loc, log_scale = encoder(x).chunk(2, dim=-1)
    return dist.Normal(loc, log_scale.exp()).to_event(1)


def train(
    images: np.ndarray, setting: settings.Setting, entropy_weight: float, seed: int
) -> tuple[Players, float]:
    """Trained players, and the share of steps whose loss was not finite."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    players = players_of(setting, settings.NUM_CHANNELS * images.shape[1])
    svi, schedule = inference(players, setting, entropy_weight)
    shape, refused = (setting.num_steps, setting.batch_size), 0
    chosen = torch.as_tensor(settings.indices(len(images), shape, seed), device=DEVICE)
    pixels = torch.as_tensor(images, device=DEVICE)
    for row in chosen:
        x = pixels[row].flatten(1)
        try:
            svi.step(x + setting.noise_scale * torch.randn_like(x))
        except ValueError:
            refused += 1
        else:
            schedule.step()
    return players, refused / setting.num_steps


@torch.no_grad()
def run(
    data: str, method: str, seed: int, setting: settings.Setting | None = None
) -> dict[str, float]:
    images, setting = settings.read_images(data), setting or settings.SETTINGS[data]
    weight = settings.METHODS[method]
    with torch.enable_grad():
        players, refused = train(images.train.images, setting, weight, seed)
    draws = players.generator(normal(setting.num_latents).sample((settings.NUM_DRAWS,)))
    energies = players.energy(draws)
    return settings.figures(images, draws.cpu().numpy(), energies.cpu().numpy(), refused)


if __name__ == "__main__":
    torch.set_num_threads(1)
    arguments = settings.read_arguments("mode_counting_pyro")
    cells = settings.cells(arguments.data)
    rows = run_cells(cells, run, arguments.output, columns=settings.COLUMNS)
    settings.print_table(rows)
