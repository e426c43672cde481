"""Bidirectional bounds with NumPyro."""

from math import prod
from typing import Any

import jax
from jax import Array, lax, random
from numpyro.distributions.util import sum_rightmost

from pyro_ebm.core.distributions.checks import check_one_law
from pyro_ebm.core.objectives import bidirectional_bounds as core
from pyro_ebm.core.objectives.generator import volume_options
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.objectives.generator import (
    GeneratorDraws,
    VariationalGenerator,
    value_and_slope,
)


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

    def loss(
        self,
        rng_key: Array,
        distribution: EnergyBased,
        value: Array,
        *,
        generator: Any,
        encoder: Any = None,
    ) -> Loss:
        check_one_law(distribution)
        value, (family_key, draw_key) = lax.stop_gradient(value), random.split(rng_key)
        options = volume_options(self)
        family = VariationalGenerator.of(family_key, distribution, generator, encoder, **options)
        num_values = value.size // prod(distribution.event_shape)
        latent = family.draw(draw_key, self.num_samples or num_values)
        draws = family.compare(distribution, latent)
        if self.penalty == "data":
            potential, penalty = self._penalize_data(distribution, value)
        else:
            potential, penalty = distribution.potential(value), self._penalize(draws)
        return self._loss(potential, penalty, draws)

    def _penalize(self, draws: GeneratorDraws) -> Array | float:
        """Penalty on the log-ratio's slopes, differentiable through the gradients of U."""
        if not self.penalty_weight:
            return 0.0

        def mean_square(gradient: Array) -> Array:
            return core.half_squared_norm(draws.slope_at(gradient)).mean()

        found = jax.value_and_grad(mean_square)(lax.stop_gradient(draws.gradient))
        penalty, weights = lax.stop_gradient(found)
        value, factor = core.hinge(penalty, self.penalty_weight, self.threshold)
        change = (weights * draws.gradient).sum()
        return value + factor * (change - lax.stop_gradient(change))

    def _penalize_data(self, distribution: EnergyBased, value: Array) -> tuple[Array, Array]:
        """Potentials at the data with the penalty there, ``(*batch,)``."""
        potential, gradient = value_and_slope(distribution.potential, value)
        square = sum_rightmost(gradient**2, distribution.event_dim)
        penalty, _ = core.hinge(square, self.penalty_weight, self.threshold)
        return potential, penalty
