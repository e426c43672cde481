"""The linear-Gaussian model on NumPyro, in five layouts, and stock ELBOs to train it with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from jax import Array, lax, random
from numpyro import handlers
from numpyro.infer import ELBO, SVI, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

import pyro_ebm.numpyro as ebm
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
    "Trace x4": lambda: Trace_ELBO(num_particles=4, vectorize_particles=False),
    "Trace x4 vectorized": lambda: Trace_ELBO(num_particles=4),
    "TraceMeanField": lambda: TraceMeanField_ELBO(),
    "TraceMeanField x4": lambda: TraceMeanField_ELBO(num_particles=4),
    "TraceGraph": lambda: TraceGraph_ELBO(),
    "Renyi x2": lambda: RenyiELBO(alpha=0.5, num_particles=2),
    "Renyi x4 vectorized": lambda: RenyiELBO(alpha=0.5, num_particles=4),
}


def quadratic(a: Array, z: Array) -> Array:
    """Energy e^a z^2 / 2."""
    return 0.5 * jnp.exp(a) * z**2


class Toy:
    """Model and guide in one of the layouts."""

    def __init__(self, layout: str) -> None:
        self.layout = layout
        self.x = jnp.asarray(data(), dtype=jnp.float32)

    def model(self) -> None:
        energy = jax.tree_util.Partial(quadratic, numpyro.param("a", jnp.zeros(())))
        with self._rows() as x:
            prior = ebm.EnergyBased(energy, dist.Normal(0.0, 4.0))
            z = numpyro.sample("z", self._wrap(prior, x))
            numpyro.sample("x", self._wrap(dist.Normal(z, 1.0), x), obs=x)

    def guide(self) -> None:
        slope = numpyro.param("slope", 0.5)
        scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
        with self._rows() as x:
            numpyro.sample("z", self._wrap(dist.Normal(slope * x, scale), x))

    @contextmanager
    def _rows(self) -> Iterator[Array]:
        if self.layout == "to_event":
            yield self.x
            return
        subsample_size = SUBSAMPLE if self.layout == "subsample" else None
        mask = MASK if self.layout == "mask" else True
        with numpyro.plate("data", NUM_DATA, subsample_size=subsample_size) as index:
            with handlers.mask(mask=mask):
                yield self.x[index]

    def _wrap(self, fn: dist.Distribution, x: Array) -> dist.Distribution:
        if self.layout == "to_event":
            return fn.expand(jnp.broadcast_shapes(fn.batch_shape, x.shape)).to_event(1)
        return fn.mask(MASK) if self.layout == "masked distribution" else fn


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
    toy = Toy(layout)
    guide = toy.guide if make_guide is None else make_guide(toy)
    objective = objective or ebm.EnergyDiscrepancy(variance=VARIANCE, num_samples=NUM_SAMPLES)
    elbo = ELBOS[elbo]() if isinstance(elbo, str) else elbo
    loss = ebm.EnergyELBO(objective, elbo, num_normalizer_samples=num_normalizer_samples)
    svi = SVI(toy.model, guide, optax.adam(learning_rate), loss=loss)

    def step(state, _):
        state, value = svi.update(state)
        return state, svi.get_params(state) | {"loss": value / num_counted(layout)}

    @jax.jit
    def train():
        state = svi.init(random.key(1), init_params={"a": jnp.array(start)})
        return lax.scan(step, state, length=num_steps)[1]

    path = train()
    path["precision"] = 1 / 16 + jnp.exp(path["a"])
    return {name: float(values[-num_averaged:].mean()) for name, values in path.items()}
