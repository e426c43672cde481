"""An energy that tilts a fitted Gaussian or a fitted flow, with Pyro and zuko.

Run: ``python tests/benchmarks/tilts_pyro.py``
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import tilts as settings
import torch
from planes_pyro import mlp
from pyro.contrib.zuko import ZukoToPyro
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import PyroLRScheduler
from resumable import output_path, run_cells
from torch import Tensor, nn
from zuko.flows import RealNVP

import pyro_ebm.pyro as ebm

pyro.enable_validation()  # zuko switches it off in all of torch.


def fit(model: Callable, guide: Callable, loss: Any, x: Tensor, num_steps: int) -> None:
    arguments = {
        "optimizer": torch.optim.Adam,
        "optim_args": lambda name: {"lr": settings.learning_rate(name)},
        "T_max": num_steps,
    }
    optimizer = PyroLRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR, arguments)
    svi = SVI(model, guide, optimizer, loss)
    for _ in range(num_steps):
        svi.step(x)
        optimizer.step()


def gaussian(x: Tensor) -> dist.MultivariateNormal:
    return dist.MultivariateNormal(x.mean(0), torch.cov(x.T))


def flow(x: Tensor, num_steps: int) -> Any:
    """A flow fitted by likelihood, with constants for parameters."""
    features = (settings.FLOW_WIDTH,)
    flow = RealNVP(2, transforms=settings.NUM_LAYERS, hidden_features=features)

    def model(x: Tensor) -> None:
        pyro.module("flow", flow)
        with pyro.plate("data", len(x), subsample_size=settings.BATCH_SIZE) as batch:
            pyro.sample("x", ZukoToPyro(flow()), obs=x[batch])

    fit(model, lambda x: None, Trace_ELBO(), x, num_steps)
    return flow.requires_grad_(False)()


def tilt(x: Tensor, base: Any, form: str, num_steps: int) -> nn.Module:
    """An energy trained over a base that stays as it is."""
    energy = mlp()

    def model(x: Tensor) -> None:
        pyro.module("energy", energy)
        with pyro.plate("data", len(x), subsample_size=settings.BATCH_SIZE) as batch:
            pyro.sample("x", ebm.EnergyBased(energy, base), obs=x[batch])

    def guide(x: Tensor) -> None:
        if form == "fenchel":
            ebm.auxiliary("x", log_normalizer=pyro.param("log_normalizer", torch.tensor(0.0)))

    fit(model, guide, settings.kale(ebm, form), x, num_steps)
    return energy


def run(
    base: str, form: str, seed: int, num_steps: dict[str, int] = settings.NUM_STEPS
) -> dict[str, float]:
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    points = settings.points(seed)
    x = torch.as_tensor(points.train)
    fitted = gaussian(x) if base == "gaussian" else flow(x, num_steps["flow"])
    energy = tilt(x, fitted, form, num_steps["energy"])

    @torch.no_grad()
    def parts(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = torch.as_tensor(points)
        return energy(x).numpy(), fitted.log_prob(x).numpy()

    log_z = ebm.log_normalizer(ebm.EnergyBased(energy, fitted), method="grid")
    return settings.figures(parts, log_z, points.test)


if __name__ == "__main__":
    torch.set_num_threads(1)
    path = output_path("tilts_pyro")
    settings.print_table(run_cells(settings.cells(), run, path, columns=settings.COLUMNS))
