"""Underdamped Langevin dynamics."""

import jax.numpy as jnp
from jax import Array

from pyro_ebm.core.samplers import settings
from pyro_ebm.core.samplers.dynamics import ChainState, drift, kick, refresh, unadjusted_info
from pyro_ebm.numpyro.samplers.base import Transition, initial_state, noise_like
from pyro_ebm.numpyro.samplers.target import Potential, value_and_gradient


class KineticLangevin(settings.KineticLangevin):
    """Kinetic Langevin dynamics, as :class:`pyro_ebm.core.samplers.settings.KineticLangevin`.

    Example:
        >>> KineticLangevin(0.3).friction
        1.0
    """

    def init(self, potential: Potential, position: Array) -> ChainState:
        state = initial_state(potential, position, self.step_size)
        return state._replace(potential=None, gradient=None, velocity=jnp.zeros_like(position))

    def step(self, rng_key: Array, potential: Potential, state: ChainState) -> Transition:
        step_size, scale = state.units()
        half = 0.5 * step_size
        position = drift(state.position, state.velocity, half, scale=scale)
        value, gradient = value_and_gradient(potential, position)
        velocity = kick(state.velocity, gradient, half, scale=scale)
        velocity = refresh(velocity, noise_like(rng_key, position), step_size, self.friction)
        velocity = kick(velocity, gradient, half, scale=scale)
        position = drift(position, velocity, half, scale=scale)
        moved = state.moved(position, None, None)._replace(velocity=velocity)
        return moved, unadjusted_info(value, gradient)
