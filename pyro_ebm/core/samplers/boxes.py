"""Boxes that enclose a density in one to three dimensions, and the grids on them.

A box is a pair of corners, each of shape ``(*batch, num_dims)``. Log-densities on a grid that
covers it evenly, faces included, have shape ``(*num_dims * [num_intervals + 1], *batch)``.
"""

import math
from collections.abc import Callable
from typing import Any

from array_api_compat import array_namespace, device

from pyro_ebm.core.numerics import expand_right

Box = tuple[Any, Any]

# Nats below its maximum at which a density is negligible (1e-7).
NEGLIGIBLE = 16.0
# A box is snug if the next one is at least this large, relative to it, in each direction.
_SNUG = 0.6
# Enough boxes, one after the other, if the first is wrong by a factor of a million.
MAX_BOXES = 40
# Unconstrained positions on an axis at which bijections are tried: beyond the largest exponent.
_STEP, _NUM_STEPS = 0.25, 3200
# Bijections are inverted up to this much, and this much relative to the position.
_LOST, _RELATIVE = 0.1, 1e-3


def limits_of(round_trip: Callable[[Any], Any], position: Any) -> Box:
    """Return the box in which a bijection loses no positions, shape of ``position[0]``.

    Sigmoids and exponentials are constant in floating point far enough from zero. ``round_trip``
    maps positions ``(N, *batch, num_dims)`` to values and back. Each axis through zero is followed.
    """
    xp, ends = array_namespace(position), []
    steps = xp.arange(-_NUM_STEPS, _NUM_STEPS + 1, dtype=position.dtype, device=device(position))
    offsets = _STEP * expand_right(steps, position.ndim - 1)
    for axis in range(position.shape[-1]):
        zero = xp.zeros_like(position[0, ..., 0]) + xp.zeros_like(offsets)
        parts = [zero + offsets if axis == other else zero for other in range(position.shape[-1])]
        points = xp.stack(parts, axis=-1)
        error = xp.abs(round_trip(points) - points) - _RELATIVE * xp.abs(points)
        lost = ~xp.all(error <= _LOST, axis=-1)
        infinite = xp.full_like(zero, math.inf)
        low = xp.max(xp.where(lost & (offsets < 0), offsets + _STEP, -infinite), axis=0)
        high = xp.min(xp.where(lost & (offsets > 0), offsets - _STEP, infinite), axis=0)
        ends.append((low, high))
    low, high = (xp.stack(corner, axis=-1) for corner in zip(*ends, strict=True))
    return low, high


def first_box(position: Any, log_density: Any) -> Box:
    """Return a box around the positions whose density is not negligible, with a margin.

    Where these are one point, the box has some width all the same.
    Positions have shape ``(N, *batch, num_dims)``, their log-densities ``(N, *batch)``.
    """
    xp = array_namespace(position)
    margin = 0.25 * (xp.max(position, axis=0) - xp.min(position, axis=0))
    kept = (log_density > xp.max(log_density, axis=0) - NEGLIGIBLE)[..., None]
    infinite = xp.full_like(position, math.inf)
    margin = xp.where(margin > 0, margin, 1e-3 * (1.0 + xp.abs(position[0, ...])))
    low = xp.min(xp.where(kept, position, infinite), axis=0)
    high = xp.max(xp.where(kept, position, -infinite), axis=0)
    return low - margin, high + margin


def points_of_grid(box: Box, num_intervals: Any, index: Any) -> Any:
    """Return the points of a grid with these numbers, shape ``(N, *batch, num_dims)``."""
    low, high = box
    xp, num_dims = array_namespace(low), num_dims_of(box)
    digits = [index // (num_intervals + 1) ** axis for axis in reversed(range(num_dims))]
    steps = xp.astype(xp.stack(digits, axis=-1) % (num_intervals + 1), low.dtype)
    share = xp.reshape(steps, (index.shape[0], *(1,) * (low.ndim - 1), num_dims)) / num_intervals
    return low + share * (high - low)


def next_box(log_density: Any, box: Box, bound: Any = None) -> Box:
    """Return a better box: cut where the density is negligible, wider where it is not.

    A face on which the density is not negligible moves outward by half of the box. With a ``bound``
    of the density around each point, that is looked at.
    """
    xp, num_dims = array_namespace(log_density), num_dims_of(box)
    kept = log_density if bound is None else bound
    kept = kept > highest_of(log_density, num_dims) - NEGLIGIBLE
    edges = [_next_edges(kept, box, axis) for axis in range(num_dims)]
    low, high = (xp.stack(ends, axis=-1) for ends in zip(*edges, strict=True))
    return low, high


def is_snug(log_density: Any, box: Box, after: Box) -> Any:
    """Find boxes with negligible density on all faces, hardly larger than the next."""
    xp, (low, high) = array_namespace(log_density), after
    snug = xp.all(high - low >= _SNUG * (box[1] - box[0]))
    return snug & xp.all(drop_to_faces(log_density, num_dims_of(box)) >= NEGLIGIBLE)


def bound_nearby(log_density: Any, num_dims: int) -> Any:
    """Add the largest change to a neighbor: about the highest within a cell, if that is a mode."""
    xp, most = array_namespace(log_density), array_namespace(log_density).zeros_like(log_density)
    for axis in range(num_dims):
        lines = xp.moveaxis(log_density, axis, 0)
        change = xp.abs(lines[1:] - lines[:-1])
        change = xp.where(xp.isfinite(change), change, xp.zeros_like(change))
        none = xp.zeros_like(lines[:1])
        larger = xp.maximum(xp.concat([none, change]), xp.concat([change, none]))
        most = xp.maximum(most, xp.moveaxis(larger, 0, axis))
    return log_density + most


def _next_edges(kept: Any, box: Box, axis: int) -> Box:
    low, high = (corner[..., axis] for corner in box)
    xp, num_dims, num_intervals = array_namespace(low), num_dims_of(box), kept.shape[axis] - 1
    others = tuple(other for other in range(num_dims) if other != axis)
    profile = xp.any(kept, axis=others) if others else kept
    steps = xp.arange(num_intervals + 1, dtype=low.dtype, device=device(low))
    step = (high - low) / num_intervals
    points = low + step * expand_right(steps, low.ndim + 1)
    infinite = xp.full_like(points, math.inf)
    first = xp.min(xp.where(profile, points, infinite), axis=0) - step
    last = xp.max(xp.where(profile, points, -infinite), axis=0) + step
    wider = 0.5 * (high - low)
    return xp.where(profile[0], low - wider, first), xp.where(profile[-1], high + wider, last)


def highest_of(log_density: Any, num_dims: int) -> Any:
    """Return the maximum over a grid."""
    return array_namespace(log_density).max(log_density, axis=tuple(range(num_dims)))


def drop_to_faces(log_density: Any, num_dims: int) -> Any:
    """Return the nats from the maximum down to the highest value on any face."""
    xp = array_namespace(log_density)
    faces = xp.full_like(highest_of(log_density, num_dims), -math.inf)
    for axis in range(num_dims):
        sides = xp.moveaxis(log_density, axis, 0)
        for side in (sides[0], sides[-1]):
            highest = highest_of(side, num_dims - 1) if num_dims > 1 else side
            faces = xp.maximum(faces, highest)
    return highest_of(log_density, num_dims) - faces


def num_dims_of(box: Box) -> int:
    """Return the number of dimensions."""
    return box[0].shape[-1]
