"""Integrals of energy-based densities in a few dimensions, on a grid."""

import math
from collections.abc import Iterator

import pyro
import torch
from torch import Tensor

from pyro_ebm.core.evidence.log_normalizer import LogNormalizer
from pyro_ebm.core.evidence.quadrature import Box, event_shape_of, first_box
from pyro_ebm.core.evidence.quadrature import integrate as integrate_on_grids
from pyro_ebm.pyro.distributions.tempered import TemperedTarget

# Points whose energies are evaluated at once.
_CHUNK = 2**14


@torch.no_grad()
def integrate(target: TemperedTarget, position: Tensor) -> tuple[LogNormalizer, Iterator[str]]:
    """Integrate a density whose bulk is at some of these positions, ``(N, *batch, *event)``."""
    event_shape = event_shape_of(target.distribution, position)
    flat = position.reshape((*position.shape[: position.ndim - len(event_shape)], -1))

    def log_density(flat: Tensor) -> Tensor:
        potential = target.at(torch.ones_like(flat[0, ..., 0]))
        value = -potential(flat.reshape(flat.shape[:-1] + event_shape))
        # Where a bijection overflows there is no density.
        return torch.where(value.isnan(), -math.inf, value)

    def log_density_on_grid(box: Box, num_intervals: int) -> Tensor:
        low, high = box
        *batch_shape, num_dims = low.shape
        grid_shape = num_dims * (num_intervals + 1,)
        parts = []
        for points in torch.arange(math.prod(grid_shape), device=low.device).split(_CHUNK):
            steps = torch.stack(torch.unravel_index(points, grid_shape), dim=-1).to(low.dtype)
            share = steps.reshape((-1, *(1 for _ in batch_shape), num_dims)) / num_intervals
            parts.append(log_density(low + share * (high - low)))
        return torch.cat(parts).reshape((*grid_shape, *batch_shape))

    with pyro.validation_enabled(is_validate=False):
        box = first_box(flat, log_density(flat))
        return integrate_on_grids(target.distribution, log_density_on_grid, box)
