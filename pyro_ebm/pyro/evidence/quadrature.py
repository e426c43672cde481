"""Integrals of energy-based densities in a few dimensions, on a grid."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_ebm.core.distributions.tempered import TemperedTarget
from pyro_ebm.core.evidence.log_normalizer import LogNormalizer
from pyro_ebm.core.evidence.quadrature import event_shape_of
from pyro_ebm.core.evidence.quadrature import integrate as integrate_on_grids
from pyro_ebm.core.samplers.boxes import first_box, limits_of
from pyro_ebm.pyro.samplers.grid import evaluate_on_grid


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

    def round_trip(flat: Tensor) -> Tensor:
        value = target.target.value(flat.reshape(flat.shape[:-1] + event_shape))
        return target.target.position(value).reshape(flat.shape)

    with pyro.validation_enabled(is_validate=False):
        limits: Any = (-math.inf, math.inf)
        if not target.target.is_unconstrained:
            limits = limits_of(round_trip, flat)
            flat = flat.clip(*limits)
        box, on_grid = first_box(flat, log_density(flat)), partial(evaluate_on_grid, log_density)
        return integrate_on_grids(target.distribution, on_grid, box, limits)
