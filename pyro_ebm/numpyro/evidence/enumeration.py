"""Sums over all values of an event, by one compiled function of a part."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from pyro_ebm.core.distributions.tempered import TemperedTarget
from pyro_ebm.core.evidence.enumeration import sum_over_values, values_of
from pyro_ebm.core.evidence.log_normalizer import LogNormalizer
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased


def enumerate_values(distribution: EnergyBased) -> LogNormalizer:
    path = TemperedTarget(distribution)
    return sum_over_values(partial(_log_density, path), values_of(path, jnp.arange))


@jax.jit
def _log_density(path: TemperedTarget, value: Array) -> Array:
    return -path.at(1.0)(value)
