"""Digits with normal priors and with priors trained between bounds, with Pyro and zuko.

Run: ``PYTHONPATH=tutorials python tests/benchmarks/bounds_digits_pyro.py``
"""

from typing import Any

import bounds_digits as settings
import pyro
import torch
from digits_pyro import NUM_LATENTS, guide
from digits_pyro import prior as tutorial_prior
from generalized_digits import PRIORS, report
from generalized_digits_pyro import Networks, look_at, model, networks_of
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import CosineAnnealingLR
from resumable import output_path, run_cells
from torch import Tensor, nn
from zuko.flows import RealNVP
from zuko.lazy import LazyTransform

import pyro_ebm.pyro as ebm
from pyro_ebm.datasets import digits

pyro.enable_validation()  # zuko switches it off in all of torch.


def untrained_flow() -> LazyTransform:
    """A way from latents of the generator to those of the decoder."""
    hidden = {"hidden_features": (settings.FLOW_WIDTH,), "activation": nn.SiLU}
    return RealNVP(NUM_LATENTS, transforms=settings.NUM_LAYERS, **hidden).transform


def train(networks: Networks, flow: LazyTransform, images: Tensor, num_steps: int) -> None:
    def guide_and_generator(networks: Networks, images: Tensor, batch_size: int) -> None:
        guide(networks, images, batch_size)
        if networks.energy is not None:
            pyro.module("generator", flow)
            ebm.auxiliary("z", generator=ebm.Pushforward(tutorial_prior(None), flow()))

    loss = Trace_ELBO()
    if networks.energy is not None:
        loss = settings.bounds(ebm, loss)
    options = {"lr": settings.LEARNING_RATE, "betas": settings.BETAS}
    adam = {"optimizer": torch.optim.Adam, "optim_args": options}
    optimizer = CosineAnnealingLR({**adam, "T_max": num_steps})
    svi = SVI(model, guide_and_generator, optimizer, loss)
    for _ in range(num_steps):
        svi.step(networks, images, batch_size=settings.BATCH_SIZE)
        optimizer.step()


def run(prior: str, split: str, seed: int) -> dict[str, Any]:
    """Train on the training images, score the images of another split."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    networks = networks_of(PRIORS["tilted normal" if prior == "bounds" else prior])
    flow, data = untrained_flow(), digits()
    train(networks, flow, torch.from_numpy(data.train.images), settings.NUM_STEPS)
    images = torch.from_numpy(getattr(data, split).images)
    return look_at(networks, images, **settings.LOG_Z)


if __name__ == "__main__":
    torch.set_num_threads(1)
    path = output_path("bounds_digits_pyro")
    rows = run_cells(settings.cells(), run, path, columns=settings.COLUMNS)
    report(rows, settings.COMPARISONS)
