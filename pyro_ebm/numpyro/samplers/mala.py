"""Metropolis-adjusted Langevin algorithm."""

from jax import Array, random

from pyro_ebm.core.samplers import dynamics, settings
from pyro_ebm.numpyro.samplers.base import Transition, initial_state, noise_like
from pyro_ebm.numpyro.samplers.target import Potential, value_and_gradient


class MALA(settings.MALA):
    """Metropolis-adjusted Langevin algorithm, as :class:`pyro_ebm.core.samplers.settings.MALA`.

    Example:
        >>> MALA() == MALA(target_accept_prob=0.574)
        True
    """

    def init(self, potential: Potential, position: Array) -> dynamics.ChainState:
        return initial_state(potential, position, self.step_size)

    def step(self, rng_key: Array, potential: Potential, state: dynamics.ChainState) -> Transition:
        noise_key, accept_key = random.split(rng_key)
        noise, (step_size, scale) = noise_like(noise_key, state.position), state.units()
        proposal = dynamics.langevin_move(
            state.position, state.gradient, noise, step_size, scale=scale
        )
        value, gradient = value_and_gradient(potential, proposal)
        log_ratio = dynamics.mala_log_acceptance(
            state.potential, state.gradient, value, gradient, noise, step_size, scale=scale
        )
        uniform = random.uniform(accept_key, log_ratio.shape, log_ratio.dtype)
        return dynamics.decide(state, (proposal, value, gradient), log_ratio, uniform)
