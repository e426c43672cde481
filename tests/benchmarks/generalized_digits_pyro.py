"""Digits with normal, flow and generalized energy-based priors, with Pyro and zuko.

Run: ``PYTHONPATH=tutorials python tests/benchmarks/generalized_digits_pyro.py``
"""

from typing import Any, NamedTuple

import generalized_digits as settings
import pyro
import torch
from digits_pyro import NUM_LATENTS, NUM_PIXELS, guide, likelihood, log_likelihood, mlp
from digits_pyro import prior as tutorial_prior
from pyro.contrib.zuko import ZukoToPyro
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import CosineAnnealingLR
from resumable import output_path, run_cells
from torch import Tensor, nn
from zuko.flows import RealNVP

import pyro_ebm.pyro as ebm
from pyro_ebm.datasets import digits

pyro.enable_validation()  # zuko switches it off in all of torch.


class Networks(NamedTuple):
    encoder: nn.Module
    decoder: nn.Module
    flow: nn.Module | None  # None: the base is standard normal
    energy: nn.Module | None  # None: the prior is the base


def networks_of(prior: settings.Prior) -> Networks:
    encoder, decoder = mlp(NUM_PIXELS, 256, 2 * NUM_LATENTS), mlp(NUM_LATENTS, 256, NUM_PIXELS)
    energy = nn.Sequential(mlp(NUM_LATENTS, 128, 1), nn.Flatten(start_dim=0))
    options = {"transforms": settings.NUM_LAYERS, "hidden_features": (settings.FLOW_WIDTH,)}
    flow = RealNVP(NUM_LATENTS, **options)
    return Networks(
        encoder, decoder, flow if prior.flow else None, energy if prior.energy else None
    )


def prior_of(networks: Networks) -> Any:
    base = tutorial_prior(None) if networks.flow is None else ZukoToPyro(networks.flow())
    return base if networks.energy is None else ebm.EnergyBased(networks.energy, base)


def model(networks: Networks, images: Tensor, batch_size: int | None = None) -> None:
    for name in ("decoder", "flow", "energy"):
        if getattr(networks, name) is not None:
            pyro.module(name, getattr(networks, name))
    with pyro.plate("images", len(images), subsample_size=batch_size) as batch:
        z = pyro.sample("z", prior_of(networks))
        pyro.sample("x", likelihood(networks.decoder, z), obs=images[batch])


def train(networks: Networks, images: Tensor, num_steps: int) -> None:
    loss = Trace_ELBO()
    if networks.energy is not None:
        loss = settings.kale(ebm, loss)
    adam = {"optimizer": torch.optim.Adam, "optim_args": {"lr": settings.LEARNING_RATE}}
    optimizer = CosineAnnealingLR({**adam, "T_max": num_steps})
    svi = SVI(model, guide, optimizer, loss)
    for _ in range(num_steps):
        svi.step(networks, images, batch_size=settings.BATCH_SIZE)
        optimizer.step()


def look_at(networks: Networks, images: Tensor, **options: Any) -> dict[str, Any]:
    """Log-likelihoods of images; ``options`` are those of ``log_normalizer``."""
    prior, normal = prior_of(networks), tutorial_prior(None)

    def as_tilt(z: Tensor) -> Tensor:
        """The energy that makes the tutorial's normal prior this one."""
        return normal.log_prob(z) - prior.log_prob(z)

    tilted = networks._replace(energy=as_tilt)
    scores = log_likelihood(tilted, images, settings.NUM_IMPORTANCE)
    if networks.energy is None:
        return settings.figures(scores)
    # Where there is a flow, chains walk in its latent space: log Z is the same.
    walked = prior if networks.flow is None else prior.latent
    return settings.figures(scores, ebm.log_normalizer(walked, **options))


def run(prior: str, split: str, seed: int) -> dict[str, Any]:
    """Train on the training images, score the images of another split."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    networks, data = networks_of(settings.PRIORS[prior]), digits()
    train(networks, torch.from_numpy(data.train.images), settings.NUM_STEPS)
    images = torch.from_numpy(getattr(data, split).images)
    return look_at(networks, images, **settings.LOG_Z)


if __name__ == "__main__":
    torch.set_num_threads(1)
    path = output_path("generalized_digits_pyro")
    settings.report(run_cells(settings.cells(), run, path, columns=settings.COLUMNS))
