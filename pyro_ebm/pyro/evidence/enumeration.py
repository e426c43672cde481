"""Sums of energy-based densities over all values of an event of codes."""

import torch

from pyro_ebm.core.distributions.tempered import TemperedTarget
from pyro_ebm.core.evidence.enumeration import sum_over_values, values_of
from pyro_ebm.core.evidence.log_normalizer import LogNormalizer
from pyro_ebm.pyro.distributions.energy_based import EnergyBased


@torch.no_grad()
def enumerate_values(distribution: EnergyBased) -> LogNormalizer:
    """Sum a density over all values, in parts that fit in memory."""
    path = TemperedTarget(distribution)
    potential = path.at(torch.ones(()))
    return sum_over_values(lambda value: -potential(value), values_of(path, torch.arange))
