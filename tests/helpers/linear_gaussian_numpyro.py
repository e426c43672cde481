"""Every stock ELBO of NumPyro around an energy prior whose best value is known."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from jax import Array, lax, random
from numpyro import handlers
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

import pyro_ebm.numpyro as ebm
from helpers.linear_gaussian import (
    LAYOUTS,
    LEARNING_RATE,
    MASK,
    NUM_DATA,
    NUM_NEGATIVES,
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
    "Renyi x4": lambda: RenyiELBO(alpha=0.5, num_particles=4),
}
SUBSAMPLE = 128


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


def run(elbo: str, layout: str, num_steps: int, seed: int) -> dict[str, float]:
    """Precision of the fitted prior and reported loss per datum, means of the last 500 steps."""
    toy = Toy(layout)
    objective = ebm.EnergyDiscrepancy(variance=VARIANCE, num_negatives=NUM_NEGATIVES)
    loss = ebm.EnergyELBO(objective, ELBOS[elbo]())
    svi = SVI(toy.model, toy.guide, optax.adam(LEARNING_RATE), loss=loss)

    def step(state, _):
        state, value = svi.update(state)
        return state, (value, svi.get_params(state)["a"])

    state = svi.init(random.key(seed))
    state, (losses, paths) = jax.jit(lambda s: lax.scan(step, s, length=num_steps))(state)
    params = svi.get_params(state)
    return {
        "precision": float(jnp.mean(1 / 16 + jnp.exp(paths[-500:]))),
        "loss": float(jnp.mean(losses[-500:]) / num_counted(layout)),
        "slope": float(params["slope"]),
        "scale": float(params["scale"]),
    }


def cells() -> list[dict]:
    return [
        {"elbo": elbo, "layout": layout, "num_steps": 4000, "seed": 1}
        for elbo in ELBOS
        for layout in LAYOUTS
    ]
