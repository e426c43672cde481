"""Noise-contrastive estimation with NumPyro."""

from jax import Array, lax

from pyro_ebm.core.objectives import noise_contrastive as core
from pyro_ebm.core.objectives.loss import Loss
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

    def loss(
        self,
        rng_key: Array,
        distribution: EnergyBased,
        value: Array,
        *,
        log_normalizer: Array | None = None,
    ) -> Loss:
        core.check_attached(distribution, log_normalizer)
        draws = lax.stop_gradient(distribution.base.sample(rng_key, (self.num_samples,)))
        return self._loss(distribution, lax.stop_gradient(value), draws, log_normalizer)
