"""Digits with a normal prior and with priors trained by f-divergences, with Pyro.

Run: ``PYTHONPATH=tutorials python tests/benchmarks/f_divergence_digits_pyro.py``
"""

import math
from typing import Any

import f_divergence_digits as settings
import pyro
import torch
from digits_pyro import (
    NUM_LATENTS,
    NUM_PIXELS,
    Networks,
    guide,
    log_likelihood,
    mlp,
    model,
    prior,
)
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import CosineAnnealingLR
from resumable import output_path, run_cells
from torch import Tensor, nn

import pyro_ebm.pyro as ebm
from pyro_ebm.datasets import digits


def scalar_mlp() -> nn.Sequential:
    return nn.Sequential(mlp(NUM_LATENTS, 128, 1), nn.Flatten(start_dim=0))


def train(networks: Networks, images: Tensor, prior_name: str) -> float:
    """Fit the networks; the mean ratio of data to model on draws, 1 for a good critic."""
    loss, critic = Trace_ELBO(), scalar_mlp()
    sampler = ebm.Langevin(settings.STEP_SIZE, settings.NUM_LANGEVIN)
    chains = ebm.PersistentChains(settings.NUM_CHAINS, (NUM_LATENTS,), sampler=sampler)

    def guide_with_critic(*args: Any, **kwargs: Any) -> None:
        guide(*args, **kwargs)
        if networks.energy is not None:
            ebm.auxiliary("z", critic=critic, chains=chains)

    if networks.energy is not None:
        objective = ebm.FDivergence(prior_name, **settings.OBJECTIVE)
        loss = ebm.EnergyELBO(objective, loss, num_normalizer_samples=0)
    adam = {"optimizer": torch.optim.Adam, "optim_args": {"lr": settings.LEARNING_RATE}}
    optimizer = CosineAnnealingLR({**adam, "T_max": settings.NUM_STEPS})
    svi = SVI(model, guide_with_critic, optimizer, loss)
    for _ in range(settings.NUM_STEPS):
        svi.step(networks, images, batch_size=settings.BATCH_SIZE)
        optimizer.step()
    if networks.energy is None:
        return math.nan
    return loss.health(model, guide_with_critic, networks, images)["z"]["mean_ratio"].item()


def run(prior_name: str, split: str, seed: int) -> dict[str, Any]:
    """Train on the training images, score the images of another split."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    encoder, decoder = mlp(NUM_PIXELS, 256, 2 * NUM_LATENTS), mlp(NUM_LATENTS, 256, NUM_PIXELS)
    energy = None if prior_name == "normal" else scalar_mlp()
    networks, data = Networks(encoder, decoder, energy), digits()
    mean_ratio = train(networks, torch.from_numpy(data.train.images), prior_name)
    images, log_z, log_z_error = torch.from_numpy(getattr(data, split).images), 0.0, 0.0
    scores = log_likelihood(networks, images, settings.NUM_IMPORTANCE)
    if energy is not None:
        normalizer = ebm.log_normalizer(prior(energy), **settings.LOG_Z)
        log_z, log_z_error = float(normalizer.estimate), float(normalizer.standard_error)
    return settings.figures(scores - log_z, log_z, log_z_error, mean_ratio)


if __name__ == "__main__":
    torch.set_num_threads(1)
    path = output_path("f_divergence_digits_pyro")
    settings.report(run_cells(settings.cells(), run, path, columns=settings.COLUMNS))
