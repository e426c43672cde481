"""Hamiltonian Monte Carlo."""

from functools import partial
from typing import Any

from jax import Array, lax, random

from pyro_ebm.core.samplers import settings
from pyro_ebm.core.samplers.dynamics import ChainState, decide, hmc_log_acceptance, leapfrog
from pyro_ebm.numpyro.samplers.base import Transition, initial_state, noise_like
from pyro_ebm.numpyro.samplers.target import Potential, value_and_gradient


class HMC(settings.HMC):
    """Hamiltonian Monte Carlo, as :class:`pyro_ebm.core.samplers.settings.HMC`.

    NumPyro's ``HMC`` takes a ``trajectory_length`` where this one takes ``num_steps``.

    Example:
        >>> HMC(0.1).num_steps
        10
    """

    def init(self, potential: Potential, position: Array) -> ChainState:
        state = initial_state(potential, position, self.step_size)
        if self.step_size is None:
            state = state._replace(step_size=self.own_step_size(state.step_size))
        return state

    def _units(self, rng_key: Array, state: ChainState) -> tuple[Array, Array]:
        if not self.step_size_jitter:
            return state.units()
        uniform = random.uniform(rng_key, state.potential.shape, state.potential.dtype)
        return state.jittered(uniform, self.step_size_jitter).units()

    def step(self, rng_key: Array, potential: Potential, state: ChainState) -> Transition:
        noise_key, accept_key = random.split(rng_key)
        velocity = noise_like(noise_key, state.position)
        units = self._units(random.fold_in(rng_key, 2), state)

        def move(_: Any, moving: Any) -> Any:
            return leapfrog(partial(value_and_gradient, potential), moving, *units)

        *proposal, end = lax.fori_loop(0, self.num_steps, move, (*state[:3], velocity))
        log_ratio = hmc_log_acceptance(state.potential, velocity, proposal[1], end)
        uniform = random.uniform(accept_key, log_ratio.shape, log_ratio.dtype)
        return decide(state, tuple(proposal), log_ratio, uniform)
