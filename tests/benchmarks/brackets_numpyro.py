"""Brackets on known normalizing constants, with NumPyro.

Run: ``python tests/benchmarks/brackets_numpyro.py``
"""

import warnings

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from brackets import (
    BASE_SCALE,
    CELLS,
    COLUMNS,
    B,
    V,
    W,
    centers,
    log_normalizer,
    offsets,
)
from jax import Array, random
from jax.tree_util import Partial
from resumable import output_path, run_cells

import pyro_ebm.numpyro as ebm

SAMPLERS = {
    "MALA": ebm.MALA(0.1),
    "MALA, step size 1e-6": ebm.MALA(1e-6, target_acceptance=None),
    "HMC": ebm.HMC(0.1),
}


def _quartic(x: Array) -> Array:
    return x**4 / 4


def _network(w: Array, b: Array, v: Array, x: Array) -> Array:
    return jnp.tanh(x @ w.T + b) @ v


def _mixture(center: Array, offset: Array, x: Array) -> Array:
    squares = ((x[:, None] - center) ** 2).sum(-1)
    tilt = (x**2).sum(-1) / (2 * BASE_SCALE**2)
    return -jax.nn.logsumexp(offset - 0.5 * squares, axis=-1) - tilt


def quartic() -> ebm.EnergyBased:
    return ebm.EnergyBased(_quartic, dist.Normal(0.0, 1.0))


def network(batch_shape: tuple[int, ...] = (), factor: float = 1.0) -> ebm.EnergyBased:
    base = dist.Normal(jnp.zeros((*batch_shape, 2)), BASE_SCALE).to_event(1)
    return ebm.EnergyBased(Partial(_network, *map(jnp.asarray, (W, B, factor * V))), base)


def mixture(num_dims: int) -> ebm.EnergyBased:
    arrays = jnp.asarray(centers(num_dims)), jnp.asarray(offsets(num_dims))
    base = dist.Normal(jnp.zeros(num_dims), BASE_SCALE).to_event(1)
    return ebm.EnergyBased(Partial(_mixture, *arrays), base)


def run(
    target: str, num_dims: int, method: str, num_temperatures: int, sampler: str, seed: int
) -> dict[str, float]:
    targets = {"quartic": quartic, "network": network, "mixture": lambda: mixture(num_dims)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Some brackets are to widen.
        result = ebm.log_normalizer(
            random.key(seed),
            targets[target](),
            method=method,
            num_temperatures=num_temperatures,
            sampler=SAMPLERS[sampler],
        )
    figures = log_normalizer(target), result.lower, result.estimate, result.upper, *result[3:5]
    return dict(zip(COLUMNS, map(float, figures), strict=True))


if __name__ == "__main__":
    run_cells(CELLS, run, output_path("brackets_numpyro"), columns=COLUMNS)
