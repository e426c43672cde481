"""Importance weights of draws from the base of an energy-based distribution."""

from typing import Any

import torch
from torch import Tensor

from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.distributions.importance import stratified
from pyro_ebm.pyro.distributions.energy_based import EnergyBased


@torch.no_grad()
def importance_log_weights(distribution: EnergyBased, num_samples: int) -> Tensor:
    """Compute minus the scaled energies of draws from the base.

    Shape ``(num_samples, *base.batch_shape)``; the mean of their exponentials estimates the
    normalizing constant. In one dimension the draws are stratified, with a far smaller error.
    """
    return -scaled_energy(distribution, draw_evenly(distribution.base, num_samples))


def draw_evenly(base: Any, num_samples: int) -> Tensor:
    """Draw from a base, in one dimension with strata."""
    draws = base.sample((num_samples,))
    return stratified(base, draws, lambda: torch.rand_like(draws))
