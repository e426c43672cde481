"""Maximum likelihood with NumPyro."""

from jax import Array, lax

from pyro_ebm.core.objectives import maximum_likelihood as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased


class MaximumLikelihood(core.MaximumLikelihood):
    """Maximum likelihood in few dimensions.

    Its limits: see the base class.

    Example:
        >>> from jax import numpy as jnp, random
        >>> from numpyro.distributions import Uniform
        >>> from pyro_ebm.numpyro import EnergyBased
        >>> density = EnergyBased(jnp.zeros_like, Uniform(0.0, 2.0))
        >>> jnp.exp(-MaximumLikelihood().loss(random.key(0), density, jnp.ones(2)).value).tolist()
        [0.5, 0.5]
    """

    _constant = staticmethod(lax.stop_gradient)

    def loss(self, rng_key: Array, distribution: EnergyBased, value: Array) -> Loss:
        return self._loss(distribution, value, rng_key)
