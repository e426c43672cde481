"""Quadrature: the trapezoid rule on the grid of a box that encloses a density."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.distributions.context import own_shape
from pyro_ebm.core.evidence.log_normalizer import LogNormalizer
from pyro_ebm.core.numerics import logsumexp
from pyro_ebm.core.samplers.boxes import (
    MAX_BOXES,
    NEGLIGIBLE,
    Box,
    drop_to_faces,
    highest_of,
    is_snug,
    next_box,
    num_dims_of,
)

# Intervals on each axis of the first grid, by dimensions; divisible by four.
_FIRST_INTERVALS = {1: 2048, 2: 64, 3: 32}
# The finest grid has 128 intervals on each of three axes, or as many points in all.
_MAX_POINTS = 129**3
# Nats between bounds that need no finer grid.
_FINE = 1e-3


def integrate(
    distribution: Any,
    log_density_on_grid: Callable[[Box, int], Any],
    box: Box,
    limits: Box = (-math.inf, math.inf),
) -> tuple[LogNormalizer, Iterator[str]]:
    """Return the log of the integral of a density in one to three dimensions, and its warnings.

    ``log_density_on_grid`` maps a box and a number of intervals to log-densities; ``box`` is a
    first guess, and no box exceeds ``limits``.
    """

    def evaluate(box: Box, num_intervals: int) -> Any:
        log_density = log_density_on_grid(box, num_intervals)
        check_density(distribution, highest_of(log_density, num_dims_of(box)))
        return log_density

    num_intervals, box = _FIRST_INTERVALS[num_dims_of(box)], _clip(box, limits)
    log_density = evaluate(box, num_intervals)
    for _ in range(MAX_BOXES):
        after = _clip(next_box(log_density, box), limits)
        if bool(is_snug(log_density, box, after)):
            break
        box = after
        log_density = evaluate(box, num_intervals)
    result = summarize_grid(log_density, box)
    while not is_fine(result, log_density, box):
        num_intervals *= 2
        log_density = evaluate(box, num_intervals)
        result = summarize_grid(log_density, box)
    return result, describe_open_box(distribution, result, log_density, box)


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
            "Expected a continuous support for method 'grid', got one with codes: use 'annealed' "
            "or, without numbers, 'enumeration'."
        )
    event_shape = tuple(position.shape[1 + len(own_shape(distribution)) :])
    check_num_dims(math.prod(event_shape))
    return event_shape


def is_fine(result: LogNormalizer, log_density: Any, box: Box) -> bool:
    """Whether the bounds are close enough to each other, or the next grid would be too large."""
    xp = array_namespace(log_density)
    num_next = math.prod(log_density.shape) * 2 ** num_dims_of(box)
    # A finer grid brings an infinite bound no nearer.
    upper = xp.where(result.upper < math.inf, result.upper, result.estimate)
    narrow = bool(xp.all(upper - result.lower < _FINE))
    # A grid that is twice as fine has a little less than twice the points on an axis.
    return narrow or num_next > 1.1 * _MAX_POINTS


def summarize_grid(log_density: Any, box: Box) -> LogNormalizer:
    r"""Apply the composite trapezoid rule, and estimate bounds of its error.

    The error falls faster than any power of the spacing where density and derivatives vanish on
    the faces. The bounds are estimates, not proofs. The rule is applied with one, two and four
    times the spacing, and its error taken to be at most the larger difference. This holds if the
    coarsest grid resolves every feature of the density (and, up to the volume of a cell, at jumps
    of the density). The integral outside is taken to be at most that of a box of the same size
    with the highest density on a face. Unless the density on all faces is negligible, or so much
    of it is, ``upper`` is infinite. The ``standard_error`` is half of the bracket's width.

    References:
        | The exponentially convergent trapezoidal rule (Trefethen and Weideman, 2014)
    """
    xp = array_namespace(log_density)
    num_dims = num_dims_of(box)
    log_volume = xp.sum(xp.log(box[1] - box[0]), axis=-1)
    fine, middle, coarse = (
        _log_mean(log_density[(slice(None, None, stride),) * num_dims], num_dims) + log_volume
        for stride in (1, 2, 4)
    )
    error = xp.maximum(xp.abs(fine - middle), xp.abs(middle - coarse))
    highest = highest_of(log_density, num_dims)
    rounding = 8.0 * xp.finfo(fine.dtype).eps * (1.0 + xp.abs(fine) + xp.abs(highest))
    drop = drop_to_faces(log_density, num_dims)
    outside = xp.exp(highest - drop + log_volume - fine)
    lower, upper = fine - error - rounding, fine + error + rounding + xp.log1p(outside)
    infinite = xp.full_like(fine, math.inf)
    upper = xp.where((drop < NEGLIGIBLE) & (outside > _FINE), infinite, upper)
    return LogNormalizer(fine, lower, upper, 0.5 * (upper - lower), infinite, None, None)


def check_density(distribution: Any, highest: Any) -> None:
    """Raise unless densities are finite, and positive somewhere, from their highest logarithms."""
    bad = highest[~array_namespace(highest).isfinite(highest)]
    if bad.shape[0]:
        raise ValueError(
            f"Expected {distribution} to have a finite density, not zero everywhere, got a "
            f"highest log-density of {float(bad[0])} on a grid."
        )


def describe_open_box(
    distribution: Any, result: LogNormalizer, log_density: Any, box: Box
) -> Iterator[str]:
    """Yield a warning if the density outside of the box has no bound."""
    xp = array_namespace(log_density)
    is_open = result.upper == math.inf
    if bool(xp.any(is_open)):
        drop = float(xp.min(drop_to_faces(log_density, num_dims_of(box))[is_open]))
        size = float(xp.max(box[1] - box[0]))
        yield (
            f"No box encloses {distribution}: on the faces of a box that is {size:.3g} wide in "
            f"unconstrained space, the log-density is only {drop:.1f} below its maximum. "
            "Its tails are too heavy for a grid or for floating-point numbers, or log Z is "
            "infinite."
        )


def _clip(box: Box, limits: Box) -> Box:
    low, high = (array_namespace(corner).clip(corner, *limits) for corner in box)
    return low, high


def _log_mean(log_density: Any, num_dims: int) -> Any:
    """Return the logarithm of the trapezoid rule over a cube of volume one."""
    xp = array_namespace(log_density)
    for _ in range(num_dims):
        ends = xp.logaddexp(log_density[0], log_density[-1]) - math.log(2.0)
        total = xp.logaddexp(logsumexp(log_density[1:-1]), ends)
        log_density = total - math.log(log_density.shape[0] - 1)
    return log_density
