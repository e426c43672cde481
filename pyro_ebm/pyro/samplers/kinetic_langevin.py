"""Underdamped Langevin dynamics."""

import torch
from torch import Tensor

from pyro_ebm.core.samplers import dynamics, settings
from pyro_ebm.pyro.samplers.base import Transition, unknown_state
from pyro_ebm.pyro.samplers.target import Potential, compilable, value_and_gradient


class KineticLangevin(settings.KineticLangevin):
    """Kinetic Langevin dynamics by the ABOBA splitting.

    Formulas and arguments: :class:`pyro_ebm.core.samplers.settings.KineticLangevin`.

    Example:
        >>> KineticLangevin(0.3, friction=2.0)
        KineticLangevin(step_size=0.3, friction=2.0)
    """

    def init(self, potential: Potential, position: Tensor) -> dynamics.ChainState:
        state = unknown_state(position, self.step_size)
        return state._replace(velocity=torch.zeros_like(position))

    def step(self, potential: Potential, state: dynamics.ChainState) -> Transition:
        noise = torch.randn_like(state.position)
        position, velocity, info = _aboba(
            potential, state.position, state.velocity, noise, *state.units(), self.friction
        )
        return state.moved(position, None, None)._replace(velocity=velocity), info


@compilable
def _aboba(
    potential: Potential,
    position: Tensor,
    velocity: Tensor,
    noise: Tensor,
    step_size: Tensor,
    scale: Tensor,
    friction: float,
) -> tuple[Tensor, Tensor, dynamics.TransitionInfo]:
    half = 0.5 * step_size
    position = dynamics.drift(position, velocity, half, scale=scale)
    value, gradient = value_and_gradient(potential, position)
    velocity = dynamics.refresh(
        dynamics.kick(velocity, gradient, half, scale=scale), noise, step_size, friction
    )
    velocity = dynamics.kick(velocity, gradient, half, scale=scale)
    position = dynamics.drift(position, velocity, half, scale=scale)
    return position, velocity, dynamics.unadjusted_info(value, gradient)
