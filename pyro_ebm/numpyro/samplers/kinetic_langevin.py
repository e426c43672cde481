"""Underdamped Langevin dynamics."""

from functools import partial

import jax.numpy as jnp
from jax import Array

from pyro_ebm.core.samplers import settings
from pyro_ebm.core.samplers.dynamics import ChainState, aboba
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
        noise = noise_like(rng_key, state.position)
        moving = state.position, state.velocity, noise, *state.units(), self.friction
        position, velocity, info = aboba(partial(value_and_gradient, potential), *moving)
        return state.moved(position, None, None)._replace(velocity=velocity), info
