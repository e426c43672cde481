"""Independent draws from a density on a grid, in one to three dimensions."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace, device

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.samplers.boxes import NEGLIGIBLE, Box, drop_to_faces, num_dims_of
from pyro_ebm.core.samplers.settings import Source

# Draws of the base, around which the first box lies.
NUM_PILOTS = 1000
# Fewer accepted moves show that cells are too large.
_FEW_ACCEPTED = 0.5
_NUM_INTERVALS = {1: 2048, 2: 256, 3: 64}


@dataclass(frozen=True, kw_only=True)
class Grid(Source):
    r"""Independent draws on a grid, exact up to rounding, in one to three dimensions.

    A box in unconstrained space is moved, cut and widened until it encloses the density: down to
    e^-16 of the maximum on its faces. Cells of the grid on it are drawn by their mass, points in
    them evenly. With :math:`q` the density of such points, each draw moves ``num_moves`` times to a
    fresh one, accepted with probability

    .. math:: \min\left(1, \frac{p(u')\, q(u)}{p(u)\, q(u')}\right)

    so that cells do not show: what is left of them falls geometrically. No gradient is needed, and
    draws have the right weights of modes. Each element of the batch of base and context has a grid
    of its own, evaluated some three to ten times while the box is found.

    A mode can be missed that is much narrower than a cell of the first grid, around 1,000 draws of
    the base. Tails must fall faster than any box grows: those of a Cauchy do not.

    Args:
        num_intervals: Cells along each axis. Default: 2048, 256 and 64 in one, two and three
            dimensions.
        num_moves: Moves of each draw.

    Raises:
        ValueError: If a number is out of range; in draws, if the event has more than three
            dimensions in unconstrained space, or no box encloses the density. (Inside ``jit``
            draws are NaN then.)

    Warns:
        UserWarning: If fewer than half of the moves are accepted: cells are too large.

    References:
        | Markov chains for exploring posterior distributions (Tierney, 1994)
    """

    num_intervals: int | None = None
    num_moves: int = 8

    def __post_init__(self) -> None:
        if self.num_intervals is not None:
            check_positive_integer("num_intervals", self.num_intervals, minimum=2)
        check_positive_integer("num_moves", self.num_moves)


def intervals_of(grid: Grid, num_dims: int) -> int:
    """Return the number of intervals on each axis; raise if there are too many axes."""
    if num_dims not in _NUM_INTERVALS:
        raise ValueError(
            f"Expected an event of 1 to 3 dimensions in unconstrained space for {grid}, got "
            f"{num_dims}: use SMC()."
        )
    return grid.num_intervals or _NUM_INTERVALS[num_dims]


def cells_of(log_density: Any, num_dims: int) -> Any:
    """Return the log-masses of cells, up to a constant, shape ``(num_cells, *batch)``.

    The density in a cell counts as the mean of its corners.
    """
    xp = array_namespace(log_density)
    for axis in range(num_dims):
        lines = xp.moveaxis(log_density, axis, 0)
        log_density = xp.moveaxis(xp.logaddexp(lines[1:], lines[:-1]), 0, axis)
    shape = log_density.shape
    return xp.reshape(log_density, (math.prod(shape[:num_dims]), *shape[num_dims:]))


def points_in_cells(box: Box, num_intervals: int, cells: Any, uniform: Any) -> Any:
    """Return points in cells with these numbers, shapes ``(N, *batch)``, and ``num_dims`` more."""
    low, high = box
    xp, num_dims = array_namespace(low), num_dims_of(box)
    digits = [cells // num_intervals**axis for axis in reversed(range(num_dims))]
    corners = xp.astype(xp.stack(digits, axis=-1) % num_intervals, low.dtype)
    return low + (corners + uniform) / num_intervals * (high - low)


def move_in_turn(log_weights: Any, uniform: Any) -> tuple[Any, Any]:
    """Choose one proposal for each draw by independent Metropolis moves.

    Args:
        log_weights: Density over that of the cells, shape ``(num_moves + 1, N, *batch)``.
        uniform: Shape ``(num_moves, N, *batch)``.

    Returns:
        Indices of the first axis, shape ``(N, *batch)``, and the mean acceptance, ``(*batch,)``.
    """
    xp = array_namespace(log_weights)
    lowest = xp.full_like(log_weights, -math.inf)
    log_weights = xp.where(xp.isfinite(log_weights), log_weights, lowest)
    here, rate = log_weights[0, ...], 0.0
    indices = xp.arange(log_weights.shape[0], device=device(log_weights))
    chosen = xp.broadcast_to(indices[0], here.shape)
    for index in range(1, log_weights.shape[0]):
        there = log_weights[index, ...]
        accepted = xp.log(uniform[index - 1, ...]) + here < there
        here = xp.where(accepted, there, here)
        chosen = xp.where(accepted, indices[index], chosen)
        rate = rate + xp.mean(xp.astype(accepted, here.dtype), axis=0) / uniform.shape[0]
    return chosen, rate


def is_enclosed(log_density: Any, box: Box) -> Any:
    """Whether boxes enclose finite densities, shape ``(*batch,)``."""
    return drop_to_faces(log_density, num_dims_of(box)) >= NEGLIGIBLE


def describe_no_box(distribution: Any) -> str:
    """Error message for a density that has no box, or is nowhere finite and positive."""
    return (
        f"Expected a box that encloses {distribution} in unconstrained space for Grid(), got none: "
        "its tails are heavy, or its energy is NaN or minus infinity, or infinite everywhere. "
        "Take SMC(), or look at the energy."
    )


def describe_large_cells(distribution: Any, grid: Grid, acceptance_rate: Any) -> Iterator[str]:
    """Yield a warning if few moves between cells are accepted."""
    if float(acceptance_rate) < _FEW_ACCEPTED:
        yield (
            f"The cells of {grid} are too large for {distribution}, which varies inside of them: "
            f"take more `num_intervals`, or SMC()."
        )
