"""Energy discrepancy with NumPyro."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
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
        kernels = [kernel_on(kernel, target.columns) for kernel in kernels]
        keys = [rng_key, *(random.fold_in(rng_key, k) for k in range(1, len(kernels)))]
        if len(self._chunks()) > 1:
            return self._in_chunks(keys, target, x, kernels)
        copies = []
        for key, kernel in zip(keys, kernels, strict=True):
            forward_key, backward_key = random.split(key)
            noisy = kernel.forward(forward_key, x)
            copies.append(kernel.backward(backward_key, noisy, self.num_samples))
        rows = lax.stop_gradient(jnp.concatenate([x[None], *copies]))
        return self._loss(target.potential(rows), len(kernels))

    def _in_chunks(
        self, rng_keys: Sequence[Array], target: Any, x: Array, kernels: Sequence[Any]
    ) -> Loss:
        chunks = [
            self._evaluate_chunks(key, target, kernel, x)
            for key, kernel in zip(rng_keys, kernels, strict=True)
        ]
        minima, negative = zip(*chunks, strict=True)
        positive = target.potential(lax.stop_gradient(x))
        return self._mean_loss(positive, jnp.stack(minima), jnp.concatenate(negative))

    def _evaluate_chunks(
        self, rng_key: Array, target: Any, kernel: Any, x: Array
    ) -> tuple[Array, Array]:
        """Soft minima of chunks of copies, shape ``(chunks, *batch)``, and all potentials."""
        forward_key, backward_key = random.split(rng_key)
        noisy, sizes = kernel.forward(forward_key, x), self._chunks()
        keys = random.split(backward_key, len(sizes))

        @partial(jax.checkpoint, static_argnums=1)
        def evaluate(key: Array, size: int) -> tuple[Array, Array]:
            copies = lax.stop_gradient(kernel.backward(key, noisy, size))
            potential = target.potential(copies)
            return core.soft_minimum(potential), lax.stop_gradient(potential)

        num_whole = sizes.count(sizes[0])
        minima, negative = lax.map(lambda key: evaluate(key, sizes[0]), keys[:num_whole])
        negative = negative.reshape(-1, *negative.shape[2:])
        if num_whole == len(sizes):
            return minima, negative
        minimum, rest = evaluate(keys[-1], sizes[-1])
        return jnp.concatenate([minima, minimum[None]]), jnp.concatenate([negative, rest])
