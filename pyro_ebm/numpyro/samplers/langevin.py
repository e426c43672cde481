"""Overdamped Langevin dynamics."""

import jax.numpy as jnp
from jax import Array, lax, random

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
        noise, temperature = self._noise(rng_key, state.position, state.index)
        step_size, scale = state.units()
        position = langevin_move(
            state.position, state.gradient, noise, step_size, scale=scale, temperature=temperature
        )
        value, gradient = value_and_gradient(potential, position)
        return state.moved(position, None, gradient), unadjusted_info(value, gradient)

    def _walk(self, rng_key: Array, potential: Potential, position: Array, num_steps: int) -> Array:
        size = self.step_size

        def move(position: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
            noise, temperature = self._noise(at[0], position, at[1])
            _, gradient = value_and_gradient(potential, position)
            moved = langevin_move(position, gradient, noise, size, temperature=temperature)
            return moved, None

        keys = random.split(rng_key, num_steps)
        return lax.scan(move, position, (keys, jnp.arange(num_steps)))[0]

    def _noise(self, rng_key: Array, position: Array, index: Array) -> tuple[Array, Array | float]:
        temperature = self.temperature
        if callable(temperature):
            temperature = jnp.asarray(temperature(index), position.dtype)
        return self.noise_scale * noise_like(rng_key, position), temperature
