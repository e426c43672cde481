"""Overdamped Langevin dynamics."""

import jax.numpy as jnp
from jax import Array

from pyro_ebm.core.samplers import settings
from pyro_ebm.core.samplers.dynamics import ChainState, langevin_move, unadjusted_info
from pyro_ebm.numpyro.samplers.base import Transition, initial_state, noise_like
from pyro_ebm.numpyro.samplers.target import Potential, value_and_gradient


class Langevin(settings.Langevin):
    """Unadjusted Langevin dynamics; a ``temperature`` schedule must be traceable by JAX.

    The other arguments: :class:`pyro_ebm.core.samplers.settings.Langevin`.

    Example:
        >>> Langevin(0.05, noise_scale=0.1).step_size
        0.05
    """

    def init(self, potential: Potential, position: Array) -> ChainState:
        return initial_state(potential, position, self.step_size)._replace(potential=None)

    def step(self, rng_key: Array, potential: Potential, state: ChainState) -> Transition:
        temperature = self.temperature
        if callable(temperature):
            temperature = jnp.asarray(temperature(state.index), state.step_size.dtype)
        noise = self.noise_scale * noise_like(rng_key, state.position)
        step_size, scale = state.units()
        position = langevin_move(
            state.position, state.gradient, noise, step_size, scale=scale, temperature=temperature
        )
        value, gradient = value_and_gradient(potential, position)
        return state.moved(position, None, gradient), unadjusted_info(value, gradient)
