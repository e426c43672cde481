"""KALE with NumPyro."""

from functools import partial

import jax
from jax import Array, lax, random

from pyro_ebm.core.objectives import kale as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.core.objectives.negatives import points_between
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
    _gradient = staticmethod(jax.grad)

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
        if not self.gradient_penalty:
            return found
        uniform = partial(random.uniform, penalty_key, dtype=value.dtype)
        fixed = lax.stop_gradient(draws)
        between = points_between(value, fixed, distribution.event_dim, uniform)
        return self._penalized(found, distribution, between)
