"""Energy discrepancy with NumPyro."""

import jax.numpy as jnp
from jax import Array, lax, random

from pyro_ebm.column_perturbations import neighbors
from pyro_ebm.core.objectives import energy_discrepancy as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.objectives.column_perturbations import kernel_on
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
        target = Target.of_any(distribution)
        x, kernels = target.position(value), self._perturbations(GaussianPerturbation)
        if core.is_exact(kernels[0]):
            rows = lax.stop_gradient(neighbors(target, x))
            return self._exact_loss(target.potential(rows), target)
        copies, keys = [], [rng_key, *(random.fold_in(rng_key, k) for k in range(1, len(kernels)))]
        for key, perturbation in zip(keys, kernels, strict=True):
            kernel = kernel_on(perturbation, target.columns)
            forward_key, backward_key = random.split(key)
            noisy = kernel.forward(forward_key, x)
            copies.append(kernel.backward(backward_key, noisy, self.num_samples))
        rows = lax.stop_gradient(jnp.concatenate([x[None], *copies]))
        return self._loss(target.potential(rows), len(kernels))
