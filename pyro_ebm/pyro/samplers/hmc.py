"""Hamiltonian Monte Carlo."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_ebm.core.samplers import settings
from pyro_ebm.core.samplers.dynamics import ChainState, decide, hmc_log_acceptance, leapfrog
from pyro_ebm.pyro.samplers.base import Transition, initial_state
from pyro_ebm.pyro.samplers.target import Potential, compilable, value_and_gradient


class HMC(settings.HMC):
    """Hamiltonian Monte Carlo with a fixed number of leapfrog steps.

    Arguments: :class:`pyro_ebm.core.samplers.settings.HMC`; ``num_steps`` as in
    :class:`pyro.infer.HMC`.

    Example:
        >>> HMC(0.1, num_steps=5).step_size_jitter
        0.5
    """

    def init(self, potential: Potential, position: Tensor) -> ChainState:
        state = initial_state(potential, position, self.step_size)
        if self.step_size is None:
            state = state._replace(step_size=self.own_step_size(state.step_size))
        return state

    def _units(self, state: ChainState) -> tuple[Tensor, Tensor]:
        if not self.step_size_jitter:
            return state.units()
        uniform = torch.rand_like(state.potential)
        return state.jittered(uniform, self.step_size_jitter).units()

    def step(self, potential: Potential, state: ChainState) -> Transition:
        velocity, units = torch.randn_like(state.position), self._units(state)
        moving = (*state[:3], velocity)
        for _ in range(self.num_steps):
            moving = _leapfrog(potential, moving, *units)
        *proposal, end = moving
        log_ratio = hmc_log_acceptance(state.potential, velocity, proposal[1], end)
        return decide(state, tuple(proposal), log_ratio, torch.rand_like(log_ratio))


@compilable
def _leapfrog(potential: Potential, moving: tuple[Tensor, ...], *units: Tensor) -> Any:
    return leapfrog(partial(value_and_gradient, potential), moving, *units)
