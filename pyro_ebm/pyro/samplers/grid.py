"""Draws from a density on a grid, on torch tensors."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pyro_ebm.core.samplers import boxes
from pyro_ebm.core.samplers import grid as core
from pyro_ebm.core.samplers.boxes import Box
from pyro_ebm.core.samplers.run import ShortRun
from pyro_ebm.core.samplers.smc import take_rows
from pyro_ebm.pyro.samplers.smc import choose

LogDensity = Callable[[Tensor], Tensor]
# Points whose energies are evaluated at once.
_CHUNK = 2**14


class Grid(core.Grid):
    """Draws on a grid; a ``sampler`` of :class:`EnergyBased`.

    The method and arguments: :class:`pyro_ebm.core.samplers.grid.Grid`.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyro_ebm.pyro import EnergyBased
        >>> base = dist.Normal(0.0, 2.0)
        >>> double_well = EnergyBased(lambda x: 4.0 * (x**2 - 1) ** 2, base, sampler=Grid())
        >>> double_well.sample((1000,)).abs().mean() > 0.9
        tensor(True)
    """


@torch.no_grad()
def draw_on_grid(grid: Grid, log_density: LogDensity, pilots: Tensor, number: int) -> ShortRun:
    """Draw ``(number, *batch, num_dims)`` from a density with some points near its bulk."""
    dtype = pilots.dtype
    if dtype.itemsize < 4:  # Half precision has no numbers for so many cells.
        wide = draw_on_grid(
            grid, lambda x: log_density(x.to(dtype)).float(), pilots.float(), number
        )
        return replace(wide, samples=wide.samples.to(dtype))
    num_dims = pilots.shape[-1]
    num_intervals = core.intervals_of(grid, num_dims)
    box = boxes.first_box(pilots, torch.zeros_like(pilots[..., 0]))
    for _ in range(boxes.MAX_BOXES):
        values = evaluate_on_grid(log_density, box, num_intervals)
        after = boxes.next_box(values, box, boxes.bound_nearby(values, num_dims))
        if bool(boxes.is_snug(values, box, after)):
            break
        box = after
    masses = core.cells_of(values, num_dims)
    shape = (grid.num_moves + 1, number, *pilots.shape[1:-1])
    cells = choose(masses, torch.rand_like(masses[:1].expand(shape[0] * number, *shape[2:])))
    noise = torch.rand((*cells.shape, num_dims), dtype=pilots.dtype, device=pilots.device)
    points = core.points_in_cells(box, num_intervals, cells, noise)
    log_weights = torch.cat([log_density(part) for part in points.split(_rows(box))])
    log_weights = (log_weights - take_rows(masses, cells)).reshape(shape)
    chosen, rate = core.move_in_turn(log_weights, torch.rand_like(log_weights[1:]))
    samples = take_rows(points.reshape((*shape, num_dims)), chosen[None])[0]
    enclosed = core.is_enclosed(values, box)[..., None]
    lowest = rate.min() if rate.numel() else rate.new_ones(())
    return ShortRun(torch.where(enclosed, samples, math.nan), lowest)


def evaluate_on_grid(log_density: LogDensity, box: Box, num_intervals: int) -> Tensor:
    """Log-densities, shape ``(*num_dims * [num_intervals + 1], *batch)``."""
    *batch_shape, num_dims = box[0].shape
    grid_shape = num_dims * (num_intervals + 1,)
    parts = torch.arange(math.prod(grid_shape), device=box[0].device).split(_rows(box))
    values = [log_density(boxes.points_of_grid(box, num_intervals, part)) for part in parts]
    return torch.cat(values).reshape((*grid_shape, *batch_shape))


def _rows(box: Box) -> int:
    return max(1, _CHUNK // max(1, box[0][..., 0].numel()))
