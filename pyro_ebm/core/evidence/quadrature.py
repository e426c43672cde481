"""Quadrature on a grid: a box that encloses a density, and the trapezoid rule inside it.

A box is a pair of corners, each of shape ``(*batch, num_dims)``. Log-densities on a grid that
covers it evenly, faces included, have shape ``(*num_dims * [num_intervals + 1], *batch)``.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from array_api_compat import array_namespace, device

from pyro_ebm.core.evidence.log_normalizer import LogNormalizer
from pyro_ebm.core.numerics import logsumexp

Box = tuple[Any, Any]

# Intervals on each axis of the first grid, by dimensions; divisible by four.
_FIRST_INTERVALS = {1: 2048, 2: 64, 3: 32}
# The finest grid has 128 intervals on each of three axes, or as many points in all.
_MAX_POINTS = 129**3
# Nats between bounds that need no finer grid.
_FINE = 1e-3
# Nats below its maximum at which a density is negligible (1e-7).
_NEGLIGIBLE = 16.0
# A box is snug if the next one is at least this large, relative to it, in each direction.
_SNUG = 0.6
# Enough boxes, one after the other, if the first is wrong by a factor of a million.
_MAX_BOXES = 40


def integrate(
    distribution: Any, log_density_on_grid: Callable[[Box, int], Any], box: Box
) -> tuple[LogNormalizer, Iterator[str]]:
    """Return the log of the integral of a density in one to three dimensions, and its warnings.

    ``log_density_on_grid`` maps a box and a number of intervals to log-densities; ``box`` is a
    first guess.
    """
    num_intervals = _FIRST_INTERVALS[_num_dims(box)]
    log_density = log_density_on_grid(box, num_intervals)
    check_density(distribution, log_density)
    for _ in range(_MAX_BOXES):
        if is_snug(log_density, box):
            break
        box = next_box(log_density, box)
        log_density = log_density_on_grid(box, num_intervals)
    result = summarize_grid(log_density, box)
    while not is_fine(result, log_density, box):
        num_intervals *= 2
        log_density = log_density_on_grid(box, num_intervals)
        result = summarize_grid(log_density, box)
    return result, describe_open_box(distribution, log_density, box)


def check_num_dims(num_dims: int) -> None:
    """Raise unless there are one to three dimensions."""
    if num_dims not in _FIRST_INTERVALS:
        raise ValueError(
            "Expected an event of 1 to 3 dimensions in unconstrained space for method 'grid', "
            f"got {num_dims}: use 'annealed'."
        )


def event_shape_of(distribution: Any, position: Any) -> tuple[int, ...]:
    """Return the event shape of positions ``(N, *batch, *event)``; raise if it is too large."""
    if distribution.support.is_discrete:
        raise ValueError(
            "Expected a continuous support for method 'grid', got a discrete one: use "
            "'enumeration' or 'annealed'."
        )
    num_batch_dims = 0 if distribution.base is None else len(distribution.base.batch_shape)
    event_shape = tuple(position.shape[1 + num_batch_dims :])
    check_num_dims(math.prod(event_shape))
    return event_shape


def first_box(position: Any, log_density: Any) -> Box:
    """Return a box around the positions whose density is not negligible, with a margin.

    Positions have shape ``(N, *batch, num_dims)``, their log-densities ``(N, *batch)``.
    """
    xp = array_namespace(position)
    margin = 0.25 * (xp.max(position, axis=0) - xp.min(position, axis=0))
    kept = (log_density > xp.max(log_density, axis=0) - _NEGLIGIBLE)[..., None]
    infinite = xp.full_like(position, math.inf)
    low = xp.min(xp.where(kept, position, infinite), axis=0)
    high = xp.max(xp.where(kept, position, -infinite), axis=0)
    return low - margin, high + margin


def next_box(log_density: Any, box: Box) -> Box:
    """Return a better box: cut where the density is negligible, wider where it is not.

    A face on which the density is not negligible moves outward by half of the box.
    """
    xp = array_namespace(log_density)
    edges = [_next_edges(log_density, box, axis) for axis in range(_num_dims(box))]
    low, high = (xp.stack(ends, axis=-1) for ends in zip(*edges, strict=True))
    return low, high


def is_snug(log_density: Any, box: Box) -> bool:
    """Whether the density is negligible on all faces, and the box is hardly too large."""
    xp = array_namespace(log_density)
    low, high = next_box(log_density, box)
    snug = bool(xp.all(high - low >= _SNUG * (box[1] - box[0])))
    return snug and bool(xp.all(_drop_to_faces(log_density, _num_dims(box)) >= _NEGLIGIBLE))


def is_fine(result: LogNormalizer, log_density: Any, box: Box) -> bool:
    """Whether the bounds are close enough to each other, or the next grid would be too large."""
    xp = array_namespace(log_density)
    num_next = math.prod(log_density.shape) * 2 ** _num_dims(box)
    narrow = bool(xp.all(result.upper - result.lower < _FINE))
    # A grid that is twice as fine has a little less than twice the points on an axis.
    return narrow or num_next > 1.1 * _MAX_POINTS


def summarize_grid(log_density: Any, box: Box) -> LogNormalizer:
    r"""Apply the composite trapezoid rule, and estimate bounds of its error.

    The error falls faster than any power of the spacing where density and derivatives vanish on
    the faces. The bounds are estimates, not proofs. The rule is applied with one, two and four
    times the spacing, and its error taken to be at most the larger difference. This holds if the
    coarsest grid resolves every feature of the density (and, up to the volume of a cell, at jumps
    of the density). The integral outside is taken to be at most that of a box of the same size
    with the highest density on a face. Unless the density is negligible on all faces, ``upper`` is
    infinite. The ``standard_error`` is half of the bracket's width.

    References:
        | The exponentially convergent trapezoidal rule (Trefethen and Weideman, 2014)
    """
    xp = array_namespace(log_density)
    num_dims = _num_dims(box)
    log_volume = xp.sum(xp.log(box[1] - box[0]), axis=-1)
    fine, middle, coarse = (
        _log_mean(log_density[(slice(None, None, stride),) * num_dims], num_dims) + log_volume
        for stride in (1, 2, 4)
    )
    error = xp.maximum(xp.abs(fine - middle), xp.abs(middle - coarse))
    highest = _highest(log_density, num_dims)
    rounding = 8.0 * xp.finfo(fine.dtype).eps * (1.0 + xp.abs(fine) + xp.abs(highest))
    outside = xp.exp(highest - _drop_to_faces(log_density, num_dims) + log_volume - fine)
    lower, upper = fine - error - rounding, fine + error + rounding + xp.log1p(outside)
    infinite = xp.full_like(fine, math.inf)
    upper = xp.where(_drop_to_faces(log_density, num_dims) < _NEGLIGIBLE, infinite, upper)
    return LogNormalizer(fine, lower, upper, 0.5 * (upper - lower), infinite, None, None)


def check_density(distribution: Any, log_density: Any) -> None:
    """Raise unless the density is finite, and positive somewhere."""
    xp = array_namespace(log_density)
    highest = float(xp.max(log_density))
    if not math.isfinite(highest):
        raise ValueError(
            f"Expected {distribution} to have a finite density, not zero everywhere, got a "
            f"highest log-density of {highest} on a grid."
        )


def describe_open_box(distribution: Any, log_density: Any, box: Box) -> Iterator[str]:
    """Yield a warning if the density is not negligible on some face of the box."""
    xp = array_namespace(log_density)
    drop = float(xp.min(_drop_to_faces(log_density, _num_dims(box))))
    if drop < _NEGLIGIBLE:
        size = float(xp.max(box[1] - box[0]))
        yield (
            f"No box encloses {distribution}: on the faces of a box that is {size:.3g} wide in "
            f"unconstrained space, the log-density is only {drop:.1f} below its maximum. "
            "Its tails are too heavy for a grid, or log Z is infinite."
        )


def _next_edges(log_density: Any, box: Box, axis: int) -> Box:
    xp = array_namespace(log_density)
    low, high = (corner[..., axis] for corner in box)
    num_dims, num_intervals = _num_dims(box), log_density.shape[axis] - 1
    others = tuple(other for other in range(num_dims) if other != axis)
    profile = xp.max(log_density, axis=others) if others else log_density
    kept = profile > _highest(log_density, num_dims) - _NEGLIGIBLE
    steps = xp.arange(num_intervals + 1, dtype=low.dtype, device=device(low))
    step = (high - low) / num_intervals
    points = low + step * xp.reshape(steps, (-1,) + (1,) * low.ndim)
    infinite = xp.full_like(points, math.inf)
    first = xp.min(xp.where(kept, points, infinite), axis=0) - step
    last = xp.max(xp.where(kept, points, -infinite), axis=0) + step
    wider = 0.5 * (high - low)
    return xp.where(kept[0], low - wider, first), xp.where(kept[-1], high + wider, last)


def _log_mean(log_density: Any, num_dims: int) -> Any:
    """Return the logarithm of the trapezoid rule over a cube of volume one."""
    xp = array_namespace(log_density)
    for _ in range(num_dims):
        ends = xp.logaddexp(log_density[0], log_density[-1]) - math.log(2.0)
        total = xp.logaddexp(logsumexp(log_density[1:-1]), ends)
        log_density = total - math.log(log_density.shape[0] - 1)
    return log_density


def _highest(log_density: Any, num_dims: int) -> Any:
    return array_namespace(log_density).max(log_density, axis=tuple(range(num_dims)))


def _drop_to_faces(log_density: Any, num_dims: int) -> Any:
    """Return the nats from the maximum down to the highest value on any face."""
    xp = array_namespace(log_density)
    faces = xp.full_like(_highest(log_density, num_dims), -math.inf)
    for axis in range(num_dims):
        sides = xp.moveaxis(log_density, axis, 0)
        for side in (sides[0], sides[-1]):
            highest = _highest(side, num_dims - 1) if num_dims > 1 else side
            faces = xp.maximum(faces, highest)
    return _highest(log_density, num_dims) - faces


def _num_dims(box: Box) -> int:
    return box[0].shape[-1]
