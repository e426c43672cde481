"""KALE with NumPyro."""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.distributions.util import sum_rightmost

from pyro_ebm.core.distributions.checks import is_implicit
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives import kale as core
from pyro_ebm.core.objectives.loss import Loss
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
        base = distribution.base
        base_loss = core.choose_base_loss(self.base_loss, base)
        core.check_log_normalizer(self.form, log_normalizer, base.batch_shape)
        value, direction = lax.stop_gradient(value), core.DIRECTIONS[base_loss]
        draw_key, penalty_key = random.split(rng_key)
        through = bool(direction) and core.is_reparametrized(distribution)
        draws, zero = self._draw(draw_key, base, direction, through=through)
        loss, metrics = self._loss(
            distribution, value, draws, zero, log_normalizer, through=through
        )
        if self.gradient_penalty:
            penalty = _squared_gradient(penalty_key, distribution, value, draws)
            loss = loss + self.gradient_penalty * penalty
        return Loss(loss, metrics)

    def _draw(
        self, rng_key: Array, base: Any, direction: float, *, through: bool
    ) -> tuple[Array, Array | float]:
        """Draws, and a term of value zero: one of the two has the base's gradient.

        It is ``direction`` times that of the log-partition.
        """
        shape = (self.num_samples,)
        try:
            draws = (base.rsample if through else base.sample)(rng_key, shape)
        except NotImplementedError as error:
            raise ValueError(f"Expected a base that can be sampled, got {base}.") from error
        constant = lax.stop_gradient(draws)
        if through:
            return constant + direction * _zero(draws), 0.0
        if direction and not is_implicit(base):
            return constant, direction * _zero(base.log_prob(constant))
        return constant, 0.0


def _zero(x: Array) -> Array:
    """Return zero with the gradient of x."""
    return x - lax.stop_gradient(x)


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
