"""Integrals of energy-based densities in a few dimensions, on a grid."""

import math
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pyro_ebm.core.distributions.tempered import TemperedTarget
from pyro_ebm.core.evidence.log_normalizer import LogNormalizer
from pyro_ebm.core.evidence.quadrature import event_shape_of
from pyro_ebm.core.evidence.quadrature import integrate as integrate_on_grids
from pyro_ebm.core.samplers.boxes import Box, first_box, limits_of, points_of_grid

# Energies that are evaluated at once.
_CHUNK = 2**14


def integrate(target: TemperedTarget, position: Array) -> tuple[LogNormalizer, Iterator[str]]:
    """Integrate a density whose bulk is at some of these positions, ``(N, *batch, *event)``.

    Energies are JAX's, all else is NumPy's: grids of ever new shapes would be compiled anew.
    """
    event_shape = event_shape_of(target.distribution, position)
    flat = position.reshape((*position.shape[: position.ndim - len(event_shape)], -1))

    def log_density_on_grid(box: Box, num_intervals: int) -> np.ndarray:
        *batch_shape, num_dims = box[0].shape
        grid_shape = num_dims * (num_intervals + 1,)
        num_points, size = math.prod(grid_shape), _points_of_chunk(box)
        parts = [
            np.asarray(_log_density_of_chunk(target, box, num_intervals, first, size, event_shape))
            for first in range(0, num_points, size)
        ]
        return np.concatenate(parts)[:num_points].reshape((*grid_shape, *batch_shape))

    def round_trip(flat: np.ndarray) -> np.ndarray:
        return np.asarray(_round_trip(target, flat, event_shape))

    with np.errstate(all="ignore"):
        flat, limits = np.asarray(flat), (-np.inf, np.inf)
        if not target.target.is_unconstrained:
            limits = limits_of(round_trip, flat)
            flat = np.clip(flat, *limits)
        box = first_box(flat, np.asarray(_log_density(target, flat, event_shape)))
        result, doubts = integrate_on_grids(target.distribution, log_density_on_grid, box, limits)
    return jax.tree.map(jnp.asarray, result), doubts


def _points_of_chunk(box: Box) -> int:
    # Grids have a point more than a power of two, and should not need a chunk more.
    return _CHUNK // math.prod(box[0].shape[:-1], start=1) + 8


@partial(jax.jit, static_argnames=("size", "event_shape"))
def _log_density_of_chunk(
    target: TemperedTarget,
    box: Box,
    num_intervals: Array,
    first: Array,
    size: int,
    event_shape: tuple[int, ...],
) -> Array:
    # The number of intervals is traced too, so that all grids share one compilation.
    points = points_of_grid(box, num_intervals, first + jnp.arange(size))
    return _log_density(target, points, event_shape)


@partial(jax.jit, static_argnames="event_shape")
def _round_trip(target: TemperedTarget, flat: Array, event_shape: tuple[int, ...]) -> Array:
    value = target.target.value(flat.reshape((*flat.shape[:-1], *event_shape)))
    # Else the compiler may cancel a function and its inverse.
    return target.target.position(lax.optimization_barrier(value)).reshape(flat.shape)


@partial(jax.jit, static_argnames="event_shape")
def _log_density(target: TemperedTarget, flat: Array, event_shape: tuple[int, ...]) -> Array:
    potential = target.at(jnp.ones_like(flat[0, ..., 0]))
    value = -potential(flat.reshape((*flat.shape[:-1], *event_shape)))
    # Where a bijection overflows there is no density.
    return jnp.where(jnp.isnan(value), -jnp.inf, value)
