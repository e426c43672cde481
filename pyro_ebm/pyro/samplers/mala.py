"""Metropolis-adjusted Langevin algorithm."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_ebm.core.samplers.dynamics import accept, langevin_move, mala_log_acceptance
from pyro_ebm.pyro.samplers.base import (
    ChainState,
    Transition,
    advanced,
    check_steps,
    decision_info,
    initial_state,
    units,
)
from pyro_ebm.pyro.samplers.target import Potential, compilable, value_and_gradient

__all__ = ["MALA"]


@dataclass(frozen=True)
class MALA:
    r"""Metropolis-adjusted Langevin algorithm: :class:`Langevin` proposals, exact in the limit.

    Args:
        step_size: :math:`h` of the proposal :math:`x - h \nabla U(x) + \sqrt{2h}\, \xi`.
        num_steps: Steps of one independent draw, when a distribution's ``sample`` runs this.
        target_acceptance: Acceptance rate that warm-up tunes the step size to; None keeps it. The
            default is the best one in many dimensions.
        adapt_scale: Whether warm-up measures every coordinate's standard deviation too.

    Raises:
        ValueError: If a number is out of range.

    References:
        | Langevin diffusions and Metropolis-Hastings algorithms (Roberts and Stramer, 2002)
        | Optimal scaling of discrete approximations to Langevin diffusions (Roberts and
          Rosenthal, 1998)
    """

    step_size: float
    num_steps: int = 100
    target_acceptance: float | None = 0.574
    adapt_scale: bool = False

    def __post_init__(self) -> None:
        check_steps(self)

    def init(self, potential: Potential, position: Tensor) -> ChainState:
        """Start chains at a position of shape ``(*chains, *event)``."""
        return initial_state(potential, position, self.step_size)

    def step(self, potential: Potential, state: ChainState) -> Transition:
        """Propose and accept or reject in every chain; one gradient."""
        noise = torch.randn_like(state.position)
        uniform = torch.rand_like(state.potential)
        *moved, log_ratio = _mala(potential, *state[:3], noise, uniform, *units(state))
        return advanced(state, *moved), decision_info(log_ratio)


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
    proposal = langevin_move(position, gradient, noise, step_size, scale=scale)
    new_value, new_gradient = value_and_gradient(potential, proposal)
    log_ratio = mala_log_acceptance(
        value, gradient, new_value, new_gradient, noise, step_size, scale=scale
    )
    accepted = uniform.log() < log_ratio
    position = accept(accepted, proposal, position)
    value = accept(accepted, new_value, value)
    return position, value, accept(accepted, new_gradient, gradient), log_ratio
