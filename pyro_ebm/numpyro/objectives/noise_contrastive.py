"""Noise-contrastive estimation with NumPyro."""

from jax import Array, lax

from pyro_ebm.core.objectives import noise_contrastive as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.numpyro.distributions.bound_energy import frozen_in_parameters
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased


class NoiseContrastive(core.NoiseContrastive):
    """Logistic regression of values against the base; log Z comes from ``numpyro.param``.

    The base class has the formula.

    Example:
        >>> from jax import numpy as jnp, random
        >>> from numpyro.distributions import Uniform
        >>> from pyro_ebm.numpyro import EnergyBased
        >>> even = EnergyBased(jnp.zeros_like, Uniform(0.0, 1.0))
        >>> loss = NoiseContrastive(num_samples=5).loss(random.key(0), even, jnp.full(1, 0.5))
        >>> print(loss.value.round(4))
        [1.3863]
    """

    _constant = staticmethod(lax.stop_gradient)
    _frozen = staticmethod(frozen_in_parameters)

    def loss(
        self,
        rng_key: Array,
        distribution: EnergyBased,
        value: Array,
        *,
        log_normalizer: Array | None = None,
    ) -> Loss:
        return self._loss(distribution, value, log_normalizer, rng_key)
