"""Sums of energy-based densities over all values of an event of codes."""

import torch

from pyro_ebm.core.evidence.enumeration import sum_over_values, values_of
from pyro_ebm.core.evidence.log_normalizer import LogNormalizer
from pyro_ebm.pyro.distributions.energy_based import EnergyBased, without_plates
from pyro_ebm.pyro.samplers.target import Target


@torch.no_grad()
def enumerate_values(distribution: EnergyBased) -> LogNormalizer:
    """Sum a density over all values, in parts that fit in memory."""
    model = without_plates(distribution)
    target = Target.of_any(model)
    values = values_of(target, model.batch_shape, model.event_shape, torch.arange)
    return sum_over_values(lambda value: -target.potential(value), values)
