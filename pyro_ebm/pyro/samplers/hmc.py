"""Hamiltonian Monte Carlo."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.samplers.dynamics import accept, drift, hmc_log_acceptance, kick
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

__all__ = ["HMC"]


@dataclass(frozen=True)
class HMC:
    r"""Hamiltonian Monte Carlo: a fresh velocity, leapfrog steps, acceptance; exact in the limit.

    Args:
        step_size: The leapfrog step :math:`h`, a time. One leapfrog step is a :class:`MALA` step
            of size :math:`h^2 / 2`.
        num_leapfrog: Leapfrog steps in one transition. Their number is fixed: a trajectory that
            is a whole number of half periods of the target comes back, so do not choose
            ``step_size * num_leapfrog`` near :math:`\pi \sigma`.
        num_steps: Transitions of one independent draw, when a distribution's ``sample`` runs this.
        target_acceptance: Acceptance rate that warm-up tunes the step size to; None keeps it.
        adapt_scale: Whether warm-up measures every coordinate's standard deviation too.

    Raises:
        ValueError: If a number is out of range.

    References:
        | MCMC using Hamiltonian dynamics (Neal, 2011)
    """

    step_size: float
    num_leapfrog: int = 10
    num_steps: int = 10
    target_acceptance: float | None = 0.8
    adapt_scale: bool = False

    def __post_init__(self) -> None:
        check_steps(self)
        check_positive_integer("num_leapfrog", self.num_leapfrog)

    def init(self, potential: Potential, position: Tensor) -> ChainState:
        """Start chains at a position of shape ``(*chains, *event)``."""
        return initial_state(potential, position, self.step_size)

    def step(self, potential: Potential, state: ChainState) -> Transition:
        """One transition of every chain; ``num_leapfrog`` gradients."""
        velocity = torch.randn_like(state.position)
        moving = (*state[:3], velocity)
        for _ in range(self.num_leapfrog):
            moving = _leapfrog(potential, *moving, *units(state))
        *proposal, proposal_velocity = moving
        log_ratio = hmc_log_acceptance(state.potential, velocity, proposal[1], proposal_velocity)
        accepted = torch.rand_like(log_ratio).log() < log_ratio
        moved = [accept(accepted, *pair) for pair in zip(proposal, state[:3], strict=True)]
        return advanced(state, *moved), decision_info(log_ratio)


@compilable
def _leapfrog(
    potential: Potential,
    position: Tensor,
    value: Tensor,
    gradient: Tensor,
    velocity: Tensor,
    step_size: Tensor,
    scale: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    velocity = kick(velocity, gradient, 0.5 * step_size, scale=scale)
    position = drift(position, velocity, step_size, scale=scale)
    value, gradient = value_and_gradient(potential, position)
    return position, value, gradient, kick(velocity, gradient, 0.5 * step_size, scale=scale)
