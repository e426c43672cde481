"""Importance weights of draws from the base of an energy-based distribution."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.distributions import Independent

from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.pyro.distributions.energy_based import EnergyBased


@torch.no_grad()
def importance_log_weights(
    distribution: EnergyBased, num_samples: int, *, stratified: bool = False
) -> Tensor:
    """Compute minus the scaled energies of draws from the base.

    Shape ``(num_samples, *base.batch_shape)``; the mean of their exponentials estimates the
    normalizing constant. In one dimension, where the base has quantiles, ``stratified`` draws
    between each two of them, and the estimate has a far smaller error.
    """
    draws = distribution.base.sample((num_samples,))
    if stratified and draws[0].numel() == distribution.base.batch_shape.numel():
        draws = _stratified(distribution.base, draws)
    return -scaled_energy(distribution, draws)


def _stratified(base: Any, draws: Tensor) -> Tensor:
    while isinstance(base, Independent):
        base = base.base_dist
    strata = torch.arange(len(draws), device=draws.device).reshape(-1, *(1,) * (draws.ndim - 1))
    shares, margin = (strata + torch.rand_like(draws)) / len(draws), torch.finfo(draws.dtype).eps
    try:
        return cast(Tensor, base.icdf(shares.clamp(margin, 1 - margin)))
    except NotImplementedError:
        return draws
