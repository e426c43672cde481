"""An energy that tilts a fitted Gaussian or a fitted flow, with NumPyro and flowjax.

Run: ``python tests/benchmarks/tilts_numpyro.py``
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import tilts as settings
from flowjax.distributions import StandardNormal, Transformed
from flowjax.experimental.numpyro import distribution_to_numpyro, register_params
from flowjax.flows import coupling_flow
from jax import Array, random
from numpyro.contrib.module import eqx_module
from numpyro.infer import SVI, Trace_ELBO
from paramax import unwrap
from planes_numpyro import Rows, mlp
from resumable import output_path, run_cells

import pyro_ebm.numpyro as ebm


def fit(
    key: Array, model: Callable, guide: Callable, loss: Any, x: Array, num_steps: int
) -> dict[str, Any]:
    """Fitted parameters."""

    def adam(player: str) -> optax.GradientTransformation:
        return optax.adam(optax.cosine_decay_schedule(settings.learning_rate(player), num_steps))

    players = {name: adam(name) for name in ("flow", "energy$params", "log_normalizer")}
    optimizer = optax.multi_transform(players, lambda params: {name: name for name in params})
    svi = SVI(model, guide, optimizer, loss)
    return svi.run(key, num_steps, x, progress_bar=False).params


def gaussian(x: Array) -> dist.MultivariateNormal:
    return dist.MultivariateNormal(x.mean(0), jnp.cov(x.T))


@cache
def untrained_flow() -> Transformed:
    """The same for all seeds: its functions would have each of them compiled anew."""
    options = {"flow_layers": settings.NUM_LAYERS, "nn_width": settings.FLOW_WIDTH}
    return coupling_flow(random.key(0), base_dist=StandardNormal((2,)), **options)


def flow(key: Array, x: Array, num_steps: int) -> Transformed:
    """A flow fitted by likelihood, with constants for parameters."""
    start = untrained_flow()

    def model(x: Array) -> None:
        flow = register_params("flow", start)
        with numpyro.plate("data", len(x), subsample_size=settings.BATCH_SIZE) as batch:
            numpyro.sample("x", distribution_to_numpyro(flow), obs=x[batch])

    params = fit(key, model, lambda x: None, Trace_ELBO(), x, num_steps)
    return unwrap(eqx.combine(params["flow"], start))


def tilt(key: Array, x: Array, base: Any, form: str, num_steps: int) -> Rows:
    """An energy trained over a base that stays as it is."""
    start_key, fit_key = random.split(key)
    start = mlp(start_key)

    def model(x: Array) -> None:
        energy = eqx_module("energy", start)
        with numpyro.plate("data", len(x), subsample_size=settings.BATCH_SIZE) as batch:
            numpyro.sample("x", ebm.EnergyBased(energy, base), obs=x[batch])

    def guide(x: Array) -> None:
        if form == "fenchel":
            ebm.auxiliary("x", log_normalizer=numpyro.param("log_normalizer", jnp.zeros(())))

    params = fit(fit_key, model, guide, settings.kale(ebm, form), x, num_steps)
    return eqx.combine(params["energy$params"], start)


@eqx.filter_jit
def train(
    key: Array, x: Array, base: str, form: str, num_steps: dict[str, int]
) -> tuple[Any, Rows]:
    """Base and energy; compiled once for all seeds."""
    flow_key, tilt_key = random.split(key)
    fitted = gaussian(x) if base == "gaussian" else flow(flow_key, x, num_steps["flow"])
    return fitted, tilt(tilt_key, x, fitted, form, num_steps["energy"])


@eqx.filter_jit
def parts(base: Any, energy: Rows, points: Array) -> tuple[Array, Array]:
    return energy(points), base.log_prob(points)


def run(
    base: str, form: str, seed: int, num_steps: dict[str, int] = settings.NUM_STEPS
) -> dict[str, float]:
    key, log_z_key = random.split(random.key(seed))
    points = settings.points(seed)
    untrained_flow()  # outside of the compiled program
    fitted, energy = train(key, jnp.asarray(points.train), base, form, num_steps)

    def of_points(points: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(map(np.asarray, parts(fitted, energy, jnp.asarray(points))))

    log_z = ebm.log_normalizer(log_z_key, ebm.EnergyBased(energy, fitted), method="grid")
    return settings.figures(of_points, log_z, points.test)


if __name__ == "__main__":
    path = output_path("tilts_numpyro")
    settings.print_table(run_cells(settings.cells(), run, path, columns=settings.COLUMNS))
