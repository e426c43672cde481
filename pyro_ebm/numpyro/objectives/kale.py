"""KALE with NumPyro."""

from math import prod

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.distributions.util import sum_rightmost

from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives import kale as core
from pyro_ebm.core.objectives.loss import EvaluatedLoss, Loss
from pyro_ebm.numpyro.distributions.bound_energy import frozen_in_parameters
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased


class KALE(core.KALE):
    """KALE; a learned A comes from ``numpyro.param`` in the guide.

    Forms, traps and settings are explained in the base class. A flow of flowjax is a base after
    ``distribution_to_numpyro(register_params("flow", flow))``.

    Example:
        >>> from jax import numpy as jnp, random
        >>> from numpyro.distributions import Uniform
        >>> from pyro_ebm.numpyro import EnergyBased
        >>> even = EnergyBased(jnp.zeros_like, Uniform(0.0, 1.0))
        >>> fenchel, x = KALE(form="fenchel"), jnp.full(1, 0.5)
        >>> fenchel.loss(random.key(0), even, x, log_normalizer=jnp.array(0.0)).value.tolist()
        [0.0]
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
        value, (draw_key, penalty_key) = lax.stop_gradient(value), random.split(rng_key)
        draws, zero, through = self._draw(distribution, log_normalizer, draw_key)
        found = self._loss(distribution, value, draws, zero, log_normalizer, through=through)
        if self.gradient_penalty:
            penalty = _squared_gradient(penalty_key, distribution, value, draws)
            loss = found.value + self.gradient_penalty * penalty
            return EvaluatedLoss(loss, found.metrics, found.potential)
        return found


def _squared_gradient(
    rng_key: Array, distribution: EnergyBased, value: Array, draws: Array
) -> Array:
    """Square the energy's gradient between each value and a draw; shape ``(*batch,)``."""
    event_dim = distribution.event_dim
    batch_shape = value.shape[: value.ndim - event_dim]
    # Draws are repeated where there are fewer than values.
    row_shape = batch_shape[: value.ndim - draws.ndim + 1]
    rows = jnp.arange(prod(row_shape)) % len(draws)
    ends = lax.stop_gradient(draws)[rows].reshape((*row_shape, *draws.shape[1:]))
    weights = random.uniform(rng_key, batch_shape + (1,) * event_dim, value.dtype)
    between = weights * value + (1 - weights) * ends
    gradient = jax.grad(lambda x: scaled_energy(distribution, x).sum())(between)
    return sum_rightmost(gradient**2, event_dim)
