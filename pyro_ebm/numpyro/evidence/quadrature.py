"""Integrals of energy-based densities in a few dimensions, on a grid."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pyro_ebm.core.evidence.quadrature import (
    Box,
    around,
    check_density,
    first_num_intervals,
    fits,
    is_fine,
    next_box,
    summarize_grid,
)
from pyro_ebm.core.evidence.weights import LogNormalizer
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.evidence.annealing import tempered

__all__ = ["integrate"]

# Points whose energies are evaluated at once.
_CHUNK = 2**14
# Boxes that are tried, one after the other: enough if the first is wrong by a factor of a million.
_MAX_BOXES = 40


def integrate(distribution: EnergyBased, position: Array) -> tuple[LogNormalizer, Any, Box]:
    """Log of the integral of a density, the log-density on the last grid, and the grid's box.

    Energies are JAX's, all else is NumPy's: grids of ever new shapes would be compiled anew.

    Args:
        distribution: With one to three dimensions in unconstrained space; needs no base.
        position: Where to look first, unconstrained, shape ``(N, *batch, *event)``.
    """
    num_batch_dims = len(distribution.base.batch_shape) if distribution.base is not None else 0
    sample_shape = position.shape[: 1 + num_batch_dims]
    event_shape = position.shape[1 + num_batch_dims :]
    num_intervals = first_num_intervals(math.prod(event_shape))
    flat = position.reshape((*sample_shape, -1))
    with np.errstate(all="ignore"):
        box = around(np.asarray(flat), np.asarray(_log_density(distribution, flat, event_shape)))
        log_density = _on_grid(distribution, box, num_intervals, event_shape)
        check_density(distribution, log_density)
        for _ in range(_MAX_BOXES):
            if fits(log_density, box):
                break
            box = next_box(log_density, box)
            log_density = _on_grid(distribution, box, num_intervals, event_shape)
        result = summarize_grid(log_density, box)
        while not is_fine(result, log_density, box):
            num_intervals *= 2
            log_density = _on_grid(distribution, box, num_intervals, event_shape)
            result = summarize_grid(log_density, box)
    arrays = (None if part is None else jnp.asarray(part) for part in result)
    return LogNormalizer(*arrays), log_density, box


def _on_grid(
    distribution: EnergyBased, box: Box, num_intervals: int, event_shape: tuple[int, ...]
) -> np.ndarray:
    *batch_shape, num_dims = box[0].shape
    grid_shape = num_dims * (num_intervals + 1,)
    num_points = math.prod(grid_shape)
    parts = [
        np.asarray(_log_density_of_chunk(distribution, box, num_intervals, first, event_shape))
        for first in range(0, num_points, _CHUNK)
    ]
    return np.concatenate(parts)[:num_points].reshape((*grid_shape, *batch_shape))


@partial(jax.jit, static_argnames="event_shape")
def _log_density_of_chunk(
    distribution: EnergyBased,
    box: Box,
    num_intervals: Array,
    first: Array,
    event_shape: tuple[int, ...],
) -> Array:
    low, high = box
    *batch_shape, num_dims = low.shape
    points = first + jnp.arange(_CHUNK)
    # The number of intervals is an argument like any other, so that grids share one compilation.
    digits = [points // (num_intervals + 1) ** axis for axis in reversed(range(num_dims))]
    steps = jnp.stack(digits, axis=-1) % (num_intervals + 1)
    share = steps.reshape((_CHUNK, *(1 for _ in batch_shape), num_dims)) / num_intervals
    return _log_density(distribution, low + share * (high - low), event_shape)


@partial(jax.jit, static_argnames="event_shape")
def _log_density(distribution: EnergyBased, flat: Array, event_shape: tuple[int, ...]) -> Array:
    value = -tempered(distribution, jnp.ones_like(flat[0, ..., 0]))(
        flat.reshape((*flat.shape[:-1], *event_shape))
    )
    # Where a bijection overflows there is no density.
    return jnp.where(jnp.isnan(value), -jnp.inf, value)
