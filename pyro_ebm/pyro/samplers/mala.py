"""Metropolis-adjusted Langevin algorithm."""

import torch
from torch import Tensor

from pyro_ebm.core.samplers import dynamics, settings
from pyro_ebm.pyro.samplers.base import Transition, initial_state
from pyro_ebm.pyro.samplers.target import Potential, compilable, value_and_gradient


class MALA(settings.MALA):
    """Metropolis-adjusted Langevin algorithm.

    Arguments: :class:`pyro_ebm.core.samplers.settings.MALA`. In ``run_chains`` with warm-up the
    step size needs no setting.

    Example:
        >>> MALA()
        MALA(step_size=None, target_accept_prob=0.574, adapt_mass_matrix=True)
    """

    def init(self, potential: Potential, position: Tensor) -> dynamics.ChainState:
        return initial_state(potential, position, self.step_size)

    def step(self, potential: Potential, state: dynamics.ChainState) -> Transition:
        noise = torch.randn_like(state.position)
        uniform = torch.rand_like(state.potential)
        *moved, log_ratio = _mala(potential, *state[:3], noise, uniform, *state.units())
        return state.moved(*moved), dynamics.decision_info(log_ratio)


@compilable
def _mala(
    potential: Potential,
    position: Tensor,
    value: Tensor,
    gradient: Tensor,
    noise: Tensor,
    uniform: Tensor,
    step_size: Tensor,
    scale: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    proposal = dynamics.langevin_move(position, gradient, noise, step_size, scale=scale)
    new_value, new_gradient = value_and_gradient(potential, proposal)
    log_ratio = dynamics.mala_log_acceptance(
        value, gradient, new_value, new_gradient, noise, step_size, scale=scale
    )
    accepted = uniform.log() < log_ratio
    position = dynamics.accept(accepted, proposal, position)
    value = dynamics.accept(accepted, new_value, value)
    return position, value, dynamics.accept(accepted, new_gradient, gradient), log_ratio
