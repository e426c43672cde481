"""Bidirectional bounds with NumPyro."""

from collections.abc import Callable
from math import prod
from typing import Any

import jax
from jax import Array, lax, random

from pyro_ebm.core.distributions.checks import check_one_distribution
from pyro_ebm.core.objectives import bidirectional_bounds as core
from pyro_ebm.core.objectives.generator import volume_options
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.objectives.generator import VariationalGenerator, value_and_slope


class BidirectionalBounds(core.BidirectionalBounds):
    """Bidirectional bounds; one key for the volume's estimate, one for the generator's draws.

    The base class explains entropies, penalties and traps.

    Example:
        >>> from jax import numpy as jnp, random
        >>> from numpyro.distributions import Normal
        >>> from pyro_ebm.numpyro import EnergyBased, Pushforward
        >>> bowl = EnergyBased(lambda x: (x**2).sum(-1) / 2, event_shape=(2,))
        >>> exact = Pushforward(Normal(jnp.zeros(2), 1.0).to_event(1), lambda z: z[:, ::-1])
        >>> objective = BidirectionalBounds(num_samples=20)
        >>> loss = objective.loss(random.key(0), bowl, jnp.zeros((1, 2)), generator=exact).value
        >>> print(f"{loss[0]:.3f}")  # log Z
        1.838
    """

    _value_and_slope = staticmethod(value_and_slope)

    def loss(
        self,
        rng_key: Array,
        distribution: EnergyBased,
        value: Array,
        *,
        generator: Any,
        encoder: Any = None,
    ) -> Loss:
        check_one_distribution(distribution)
        value, (family_key, draw_key) = lax.stop_gradient(value), random.split(rng_key)
        options = volume_options(self)
        family = VariationalGenerator.of(family_key, distribution, generator, encoder, **options)
        num_values = value.size // prod(distribution.event_shape)
        latent = family.draw(draw_key, self.num_samples or num_values)
        draws = family.compare(distribution, latent)
        return self._loss(distribution, value, draws)

    @staticmethod
    def _value_and_gradient(function: Callable[[Array], Array], x: Array) -> Any:
        return lax.stop_gradient(jax.value_and_grad(function)(lax.stop_gradient(x)))
