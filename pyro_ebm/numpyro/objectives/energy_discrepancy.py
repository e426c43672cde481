"""Energy discrepancy with NumPyro."""

import jax.numpy as jnp
from jax import Array, lax, random

from pyro_ebm.core.objectives import energy_discrepancy as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.objectives.perturbations import GaussianPerturbation
from pyro_ebm.numpyro.samplers.target import Target


class EnergyDiscrepancy(core.EnergyDiscrepancy):
    """Energy discrepancy, by keys for noising and for un-noising that are split from one.

    The base class has the formula and explains the settings.

    Example:
        >>> from jax import numpy as jnp, random
        >>> from pyro_ebm.numpyro import EnergyBased
        >>> constant = EnergyBased(lambda x: jnp.ones(len(x)), event_shape=(2,))
        >>> objective = EnergyDiscrepancy(variance=1.0, num_samples=4)
        >>> loss = objective.loss(random.key(0), constant, jnp.zeros((3, 2))).value
        >>> print(jnp.exp(loss).round(3))
        [1.25 1.25 1.25]
    """

    _constant = staticmethod(lax.stop_gradient)

    def loss(self, rng_key: Array, distribution: EnergyBased, value: Array) -> Loss:
        target, variance = Target.of(distribution), self.variance
        kernel = self.perturbation if variance is None else GaussianPerturbation(variance)
        forward_key, backward_key = random.split(rng_key)
        x = target.position(value)
        copies = kernel.backward(backward_key, kernel.forward(forward_key, x), self.num_samples)
        return self._loss(target.potential(lax.stop_gradient(jnp.concatenate([x[None], copies]))))
