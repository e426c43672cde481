"""Underdamped Langevin dynamics."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyro_ebm.core.checks import check_positive
from pyro_ebm.core.samplers.dynamics import drift, kick, refresh
from pyro_ebm.pyro.samplers.base import (
    ChainState,
    Transition,
    TransitionInfo,
    advanced,
    check_steps,
    initial_state,
    unadjusted_info,
    units,
)
from pyro_ebm.pyro.samplers.target import Potential, compilable, value_and_gradient

__all__ = ["KineticLangevin"]


@dataclass(frozen=True)
class KineticLangevin:
    r"""Kinetic (underdamped) Langevin dynamics, by the ABOBA splitting.

    Half a drift, half a kick, friction and noise, half a kick, half a drift, where

    .. math::
        \text{drift: } x \mathrel{+}= h v, \qquad \text{kick: } v \mathrel{-}= h \nabla U, \qquad
        \text{friction: } v \leftarrow e^{-\kappa h} v + \sqrt{1 - e^{-2 \kappa h}}\, \xi

    For a Gaussian of variance :math:`\sigma^2` the positions have exactly that variance for every
    :math:`h < 2 \sigma`, the velocities :math:`1 / (1 - h^2 / (4 \sigma^2))`.

    Args:
        step_size: :math:`h`, a time. A comparable :class:`Langevin` step is :math:`h^2 / 2`.
        friction: :math:`\kappa`, an inverse time.
        num_steps: Steps of one independent draw, when a distribution's ``sample`` runs this.

    Raises:
        ValueError: If a number is out of range.

    References:
        | Rational construction of stochastic numerical methods for molecular sampling
          (Leimkuhler and Matthews, 2013)
        | Generalized energy based models (Arbel, Zhou and Gretton, 2021)
    """

    step_size: float
    friction: float = 1.0
    num_steps: int = 100
    target_acceptance: None = field(default=None, init=False, repr=False)
    adapt_scale: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        check_steps(self)
        check_positive("friction", self.friction)

    def init(self, potential: Potential, position: Tensor) -> ChainState:
        """Start chains at a position of shape ``(*chains, *event)``, at rest."""
        state = initial_state(potential, position, self.step_size)
        return state._replace(potential=None, gradient=None, velocity=torch.zeros_like(position))

    def step(self, potential: Potential, state: ChainState) -> Transition:
        """Move every chain once; one gradient, in the middle of the step."""
        noise = torch.randn_like(state.position)
        position, velocity, info = _aboba(
            potential, state.position, state.velocity, noise, *units(state), self.friction
        )
        return advanced(state, position, None, None)._replace(velocity=velocity), info


@compilable
def _aboba(
    potential: Potential,
    position: Tensor,
    velocity: Tensor,
    noise: Tensor,
    step_size: Tensor,
    scale: Tensor,
    friction: float,
) -> tuple[Tensor, Tensor, TransitionInfo]:
    half = 0.5 * step_size
    position = drift(position, velocity, half, scale=scale)
    value, gradient = value_and_gradient(potential, position)
    velocity = refresh(kick(velocity, gradient, half, scale=scale), noise, step_size, friction)
    velocity = kick(velocity, gradient, half, scale=scale)
    position = drift(position, velocity, half, scale=scale)
    return position, velocity, unadjusted_info(value, gradient)
