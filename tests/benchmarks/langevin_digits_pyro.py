"""Digits with a normal and with an energy-based prior, short-run Langevin for an encoder.

Run: ``PYTHONPATH=tutorials python tests/benchmarks/langevin_digits_pyro.py``
"""

from typing import Any

import langevin_digits as settings
import pyro
import pyro.distributions as dist
import torch
from digits_pyro import NUM_LATENTS, NUM_PIXELS, Networks, mlp, model, prior
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import CosineAnnealingLR
from resumable import output_path, run_cells
from torch import Tensor, nn

import pyro_ebm.pyro as ebm
from pyro_ebm.datasets import digits


def fit(guide: Any, loss: Any, rate: float, num_steps: int, *args: Any, **kwargs: Any) -> None:
    """Steps of SVI with a learning rate that falls to zero."""
    options = {"optimizer": torch.optim.Adam, "optim_args": {"lr": rate}, "T_max": num_steps}
    scheduler = CosineAnnealingLR(options)
    svi = SVI(model, guide, scheduler, loss)
    for _ in range(num_steps):
        svi.step(*args, **kwargs)
        scheduler.step()


def train(networks: Networks, images: Tensor) -> None:
    """Fit the networks with a guide that has no parameters; they are constants afterwards."""
    guide = ebm.LangevinGuide(model, ebm.Langevin(settings.STEP_SIZE, settings.NUM_LANGEVIN))
    loss = Trace_ELBO()
    if networks.energy is not None:
        objective = ebm.EnergyDiscrepancy(variance=settings.VARIANCE)
        loss = ebm.EnergyELBO(objective, Trace_ELBO())
    rate, num_steps = settings.LEARNING_RATE, settings.NUM_TRAINING
    fit(guide, loss, rate, num_steps, networks, images, batch_size=settings.BATCH_SIZE)
    for network in networks:
        if network is not None:
            network.requires_grad_(False).eval()


def fitted_posteriors(networks: Networks, images: Tensor) -> Any:
    """Guide with a normal distribution of its own for each image, fitted to its posterior."""
    chains = ebm.LangevinGuide(model, ebm.Langevin(settings.STEP_SIZE / 2, num_steps=300))
    start = chains(networks, images)["z"]
    narrow = 0.1 * torch.eye(NUM_LATENTS).repeat(len(images), 1, 1)

    def guide(networks: Networks, images: Tensor, widened: float = 1.0) -> None:
        loc = pyro.param("loc", start)
        tril = pyro.param("tril", narrow, constraint=dist.constraints.lower_cholesky)
        with pyro.plate("images", len(images)):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=widened * tril))

    fit(guide, Trace_ELBO(), settings.FITTING_RATE, settings.NUM_FITTING, networks, images)
    return lambda networks, images: guide(networks, images, settings.WIDENED)


def run(prior_name: str, split: str, seed: int) -> dict[str, Any]:
    """Train on the training images, score the images of another split."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    decoder, energy = mlp(NUM_LATENTS, 256, NUM_PIXELS), None
    if prior_name == "energy-based":
        energy = nn.Sequential(mlp(NUM_LATENTS, 128, 1), nn.Flatten(start_dim=0))
    networks, data = Networks(None, decoder, energy), digits()
    train(networks, torch.from_numpy(data.train.images))
    images, known = torch.from_numpy(getattr(data, split).images), {}
    log_z, log_z_error = 0.0, 0.0
    if energy is not None:
        known["z"] = ebm.log_normalizer(prior(energy), **settings.LOG_Z)
        log_z, log_z_error = float(known["z"].estimate), float(known["z"].standard_error)
    guide = fitted_posteriors(networks, images)
    importance = ebm.log_marginal(
        model, guide, networks, images, log_normalizers=known,
        num_samples=settings.NUM_IMPORTANCE, batch_size=settings.IMPORTANCE_BATCH,
    )  # fmt: skip
    few = images[: settings.NUM_ANNEALED_IMAGES]
    annealed = ebm.log_marginal(
        model, None, networks, few, log_normalizers=known, **settings.ANNEALING
    )
    return settings.figures(importance, annealed, log_z, log_z_error)


if __name__ == "__main__":
    torch.set_num_threads(1)
    path = output_path("langevin_digits_pyro")
    settings.report(run_cells(settings.cells(), run, path, columns=settings.COLUMNS))
