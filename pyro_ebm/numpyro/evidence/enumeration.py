"""Sums over all values of an event, by one compiled function of a part."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from pyro_ebm.core.evidence.enumeration import sum_over_values, values_of
from pyro_ebm.core.evidence.log_normalizer import LogNormalizer
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased, without_plates
from pyro_ebm.numpyro.samplers.target import Target


def enumerate_values(distribution: EnergyBased) -> LogNormalizer:
    model = without_plates(distribution)
    target = Target.of_any(model)
    values = values_of(target, model.batch_shape, model.event_shape, jnp.arange)
    return sum_over_values(partial(_log_density, model), values)


@jax.jit
def _log_density(distribution: EnergyBased, value: Array) -> Array:
    return -distribution.potential(value)
