"""Importance weights of draws from a base."""

from typing import Any

from jax import Array, lax, random

from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.distributions.importance import stratified
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased


def importance_log_weights(rng_key: Array, distribution: EnergyBased, num_samples: int) -> Array:
    draws = draw_evenly(rng_key, distribution.base, num_samples)
    return lax.stop_gradient(-scaled_energy(distribution, draws))


def draw_evenly(rng_key: Array, base: Any, num_samples: int) -> Array:
    draws = base.sample(rng_key, (num_samples,))
    return stratified(base, draws, lambda: random.uniform(rng_key, draws.shape))
