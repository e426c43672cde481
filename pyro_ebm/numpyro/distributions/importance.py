"""Importance weights of draws from a base."""

from math import prod
from typing import Any

import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.distributions import Independent

from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased


def importance_log_weights(
    rng_key: Array, distribution: EnergyBased, num_samples: int, *, stratified: bool = False
) -> Array:
    base = distribution.base
    if base is None:
        raise NotImplementedError("Expected a base to draw from, got base=None.")
    if stratified and prod(distribution.event_shape) == 1:
        values = _stratified(rng_key, base, num_samples)
    else:
        values = base.sample(rng_key, (num_samples,))
    return lax.stop_gradient(-scaled_energy(distribution, values))


def _stratified(rng_key: Array, base: Any, num_samples: int) -> Array:
    shape = (num_samples, *base.shape())
    while isinstance(base, Independent):
        base = base.base_dist
    strata = jnp.arange(num_samples).reshape(-1, *(1 for _ in shape[1:]))
    shares = (strata + random.uniform(rng_key, shape)) / num_samples
    margin = jnp.finfo(shares.dtype).eps
    try:
        return base.icdf(shares.clip(margin, 1 - margin))
    except (NotImplementedError, ImportError):  # Some quantiles need another package.
        return base.sample(rng_key, (num_samples,))
