"""Integrals of energy-based densities in a few dimensions, on a grid."""

import math

import pyro
import torch
from torch import Tensor

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
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.evidence.annealing import tempered

__all__ = ["integrate"]

# Points whose energies are evaluated at once.
_CHUNK = 2**14
# Boxes that are tried, one after the other: enough if the first is wrong by a factor of a million.
_MAX_BOXES = 40


@torch.no_grad()
def integrate(distribution: EnergyBased, position: Tensor) -> tuple[LogNormalizer, Tensor, Box]:
    """Log of the integral of a density, the log-density on the last grid, and the grid's box.

    Args:
        distribution: With one to three dimensions in unconstrained space; needs no base.
        position: Where to look first, unconstrained, shape ``(N, *batch, *event)``.
    """
    num_batch_dims = len(distribution.base.batch_shape) if distribution.base is not None else 0
    sample_shape = position.shape[: 1 + num_batch_dims]
    event_shape = position.shape[1 + num_batch_dims :]
    num_intervals = first_num_intervals(math.prod(event_shape))
    flat = position.reshape((*sample_shape, -1))
    with pyro.validation_enabled(is_validate=False):
        box = around(flat, _log_density(distribution, flat, event_shape))
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
    return result, log_density, box


def _on_grid(
    distribution: EnergyBased, box: Box, num_intervals: int, event_shape: torch.Size
) -> Tensor:
    low, high = box
    *batch_shape, num_dims = low.shape
    grid_shape = num_dims * (num_intervals + 1,)
    parts = []
    for points in torch.arange(math.prod(grid_shape), device=low.device).split(_CHUNK):
        steps = torch.stack(torch.unravel_index(points, grid_shape), dim=-1).to(low.dtype)
        share = steps.reshape((-1, *(1 for _ in batch_shape), num_dims)) / num_intervals
        parts.append(_log_density(distribution, low + share * (high - low), event_shape))
    return torch.cat(parts).reshape((*grid_shape, *batch_shape))


def _log_density(distribution: EnergyBased, flat: Tensor, event_shape: torch.Size) -> Tensor:
    position = flat.reshape(flat.shape[:-1] + event_shape)
    value = -tempered(distribution, torch.ones_like(flat[0, ..., 0]))(position)
    # Where a bijection overflows there is no density.
    return torch.where(value.isnan(), -math.inf, value)
