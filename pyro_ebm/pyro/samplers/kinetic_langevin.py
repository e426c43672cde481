"""Underdamped Langevin dynamics."""

from functools import partial
from typing import Any

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
def _aboba(potential: Potential, *args: Any) -> Any:
    return dynamics.aboba(partial(value_and_gradient, potential), *args)
