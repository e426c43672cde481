"""Draws from a density on a grid, compiled."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array, lax, random

from pyro_ebm.core.samplers import boxes
from pyro_ebm.core.samplers import grid as core
from pyro_ebm.core.samplers.boxes import Box
from pyro_ebm.core.samplers.run import ShortRun
from pyro_ebm.core.samplers.smc import take_rows
from pyro_ebm.numpyro.samplers.smc import choose

LogDensity = Callable[[Array], Array]
# Points whose energies are evaluated at once.
_CHUNK = 2**14


class Grid(core.Grid):
    """Draws on a grid, as ``EnergyBased(..., sampler=Grid())`` makes them.

    See :class:`pyro_ebm.core.samplers.grid.Grid`.

    Example:
        >>> from jax import random
        >>> from numpyro.distributions import Normal
        >>> from pyro_ebm.numpyro import EnergyBased
        >>> narrow = EnergyBased(lambda x: 5000 * x**2, Normal(1.0, 1.0), sampler=Grid())
        >>> bool(abs(narrow.sample(random.key(0), (1000,))).mean() < 0.01)
        True
    """


def draw_on_grid(
    rng_key: Array, grid: Grid, log_density: LogDensity, pilots: Array, number: int
) -> ShortRun:
    """Draw ``(number, *batch, num_dims)`` from a density with some points near its bulk."""
    num_dims = pilots.shape[-1]
    num_intervals = core.intervals_of(grid, num_dims)
    box, values = _enclose(log_density, pilots, num_intervals)
    masses = core.cells_of(values, num_dims)
    shape = (grid.num_moves + 1, number, *pilots.shape[1:-1])
    cell_key, noise_key, move_key = random.split(rng_key, 3)
    cells = (shape[0] * number, *shape[2:])
    cells = choose(masses, random.uniform(cell_key, cells, pilots.dtype))
    noise = random.uniform(noise_key, (*cells.shape, num_dims), pilots.dtype)
    points = core.points_in_cells(box, num_intervals, cells, noise)
    log_weights = _in_chunks(log_density, points, box)
    log_weights = (log_weights - take_rows(masses, cells)).reshape(shape)
    uniform = random.uniform(move_key, log_weights[1:].shape, pilots.dtype)
    chosen, rate = core.move_in_turn(log_weights, uniform)
    samples = take_rows(points.reshape((*shape, num_dims)), chosen[None])[0]
    enclosed = core.is_enclosed(values, box)[..., None]
    return ShortRun(jnp.where(enclosed, samples, math.nan), rate.min(initial=1.0))


def _enclose(log_density: LogDensity, pilots: Array, num_intervals: int) -> tuple[Box, Array]:
    """Find a box, and evaluate the density on its grid."""
    num_dims = pilots.shape[-1]

    def goes_on(carry: Any) -> Array:
        *_, is_snug, count = carry
        return ~is_snug & (count < boxes.MAX_BOXES)

    def change(carry: Any) -> Any:
        _, _, box, _, count = carry
        values = evaluate_on_grid(log_density, box, num_intervals)
        after = boxes.next_box(values, box, boxes.bound_nearby(values, num_dims))
        return box, values, after, boxes.is_snug(values, box, after), count + 1

    box = boxes.first_box(pilots, jnp.zeros_like(pilots[..., 0]))
    # In the loop alone, so that the energy is compiled once.
    values = jnp.zeros((*num_dims * (num_intervals + 1,), *pilots.shape[1:-1]), pilots.dtype)
    box, values, *_ = lax.while_loop(goes_on, change, (box, values, box, False, 0))
    return box, values


def evaluate_on_grid(log_density: LogDensity, box: Box, num_intervals: int) -> Array:
    """Log-densities, shape ``(*num_dims * [num_intervals + 1], *batch)``."""
    *batch_shape, num_dims = box[0].shape
    grid_shape = num_dims * (num_intervals + 1,)

    def at(index: Array) -> Array:
        return log_density(boxes.points_of_grid(box, num_intervals, index))

    values = _in_chunks(at, jnp.arange(math.prod(grid_shape)), box)
    return values.reshape((*grid_shape, *batch_shape))


def _in_chunks(function: LogDensity, rows: Array, box: Box) -> Array:
    """Map rows by a function of many, a chunk after the other."""
    size = min(len(rows), max(1, _CHUNK // max(1, box[0][..., 0].size)))
    num_chunks = math.ceil(len(rows) / size)
    lacking = [(0, num_chunks * size - len(rows)), *((0, 0) for _ in rows.shape[1:])]
    chunks = jnp.pad(rows, lacking, mode="edge").reshape((num_chunks, size, *rows.shape[1:]))
    results = lax.map(function, chunks)
    return results.reshape((num_chunks * size, *results.shape[2:]))[: len(rows)]
