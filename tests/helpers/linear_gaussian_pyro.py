"""The linear-Gaussian model on Pyro, in five layouts, and stock ELBOs to train it with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import (
    ELBO,
    SVI,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm
from helpers.linear_gaussian import (
    LEARNING_RATE,
    MASK,
    NUM_DATA,
    NUM_SAMPLES,
    SUBSAMPLE,
    VARIANCE,
    data,
    num_counted,
)

ELBOS = {
    "Trace": lambda: Trace_ELBO(),
    "Trace x4": lambda: Trace_ELBO(num_particles=4),
    "Trace x4 vectorized": lambda: Trace_ELBO(
        num_particles=4, vectorize_particles=True, max_plate_nesting=1
    ),
    "TraceMeanField": lambda: TraceMeanField_ELBO(),
    "TraceGraph": lambda: TraceGraph_ELBO(),
    "TraceEnum": lambda: TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False),
    "Renyi x2": lambda: RenyiELBO(alpha=0.5, num_particles=2),
    "Renyi x4 vectorized": lambda: RenyiELBO(
        alpha=0.5, num_particles=4, vectorize_particles=True, max_plate_nesting=1
    ),
    "ReweightedWakeSleep x4": lambda: ReweightedWakeSleep(num_particles=4, max_plate_nesting=1),
}


class Quadratic(nn.Module):
    """Energy e^a z^2 / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.0))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.a.exp() * z.square()


class Toy:
    """Model and guide in one of the layouts."""

    def __init__(self, layout: str) -> None:
        self.layout = layout
        self.energy = Quadratic()
        self.x = torch.as_tensor(data(), dtype=torch.float32)
        self.mask = torch.as_tensor(MASK)

    def model(self) -> None:
        pyro.module("energy", self.energy)
        with self._rows() as x:
            prior = ebm.EnergyBased(self.energy, dist.Normal(0.0, 4.0))
            z = pyro.sample("z", self._wrap(prior, x))
            pyro.sample("x", self._wrap(dist.Normal(z, 1.0), x), obs=x)

    def guide(self) -> None:
        slope = pyro.param("slope", torch.tensor(0.5))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        with self._rows() as x:
            pyro.sample("z", self._wrap(dist.Normal(slope * x, scale), x))

    @contextmanager
    def _rows(self) -> Iterator[torch.Tensor]:
        if self.layout == "to_event":
            yield self.x
            return
        subsample_size = SUBSAMPLE if self.layout == "subsample" else None
        mask = self.mask if self.layout == "mask" else True
        with pyro.plate("data", NUM_DATA, subsample_size=subsample_size) as index:
            with poutine.mask(mask=mask):
                yield self.x[index]

    def _wrap(self, fn: dist.Distribution, x: torch.Tensor) -> dist.Distribution:
        if self.layout == "to_event":
            return fn.expand(torch.broadcast_shapes(fn.batch_shape, x.shape)).to_event(1)
        return fn.mask(self.mask) if self.layout == "masked distribution" else fn


def run(
    elbo: str | ELBO = "Trace",
    layout: str = "plate",
    *,
    num_steps: int,
    make_guide: Callable[[Toy], Any] | None = None,
    objective: Any = None,
    start: float = 0.0,
    learning_rate: float = LEARNING_RATE,
    num_averaged: int = 500,
    num_normalizer_samples: int = 128,
) -> dict[str, float]:
    """Means of prior precision, loss per datum, slope and scale over the last steps.

    The guide is the toy's own unless ``make_guide(toy)`` gives another.
    """
    pyro.set_rng_seed(1)
    toy = Toy(layout)
    toy.energy.a.data.fill_(start)
    guide = toy.guide if make_guide is None else make_guide(toy)
    objective = objective or ebm.EnergyDiscrepancy(variance=VARIANCE, num_samples=NUM_SAMPLES)
    elbo = ELBOS[elbo]() if isinstance(elbo, str) else elbo
    loss = ebm.EnergyELBO(objective, elbo, num_normalizer_samples=num_normalizer_samples)
    svi = SVI(toy.model, guide, Adam({"lr": learning_rate}), loss=loss)
    path: dict[str, list[float]] = {"precision": [], "loss": [], "slope": [], "scale": []}
    store = pyro.get_param_store()
    for _ in range(num_steps):
        value = svi.step()
        path["loss"].append((value[0] if isinstance(value, tuple) else value) / num_counted(layout))
        path["precision"].append(1 / 16 + toy.energy.a.detach().exp().item())
        for name in {"slope", "scale"} & set(store.keys()):
            path[name].append(store[name].item())
    return {name: sum(values[-num_averaged:]) / num_averaged for name, values in path.items()}
