"""Overdamped Langevin dynamics."""

import torch
from torch import Tensor

from pyro_ebm.core.samplers import dynamics, settings
from pyro_ebm.pyro.samplers.base import Transition, initial_state
from pyro_ebm.pyro.samplers.target import Potential, compilable, value_and_gradient


class Langevin(settings.Langevin):
    """Unadjusted Langevin dynamics.

    Arguments and bias: :class:`pyro_ebm.core.samplers.settings.Langevin`.

    Example:
        >>> Langevin(0.05)
        Langevin(step_size=0.05, temperature=1.0, noise_scale=1.0)
    """

    def init(self, potential: Potential, position: Tensor) -> dynamics.ChainState:
        return initial_state(potential, position, self.step_size)._replace(potential=None)

    def step(self, potential: Potential, state: dynamics.ChainState) -> Transition:
        noise, temperature = self._noise(state.position, state.index)
        position, gradient, info = _langevin(
            potential, state.position, state.gradient, noise, *state.units(), temperature
        )
        return state.moved(position, None, gradient), info

    def _walk(self, potential: Potential, position: Tensor, num_steps: int) -> Tensor:
        """Take the same steps without statistics, and without the gradient after the last."""
        for index in range(num_steps):
            noise, temperature = self._noise(position, index)
            _, gradient = value_and_gradient(potential, position)
            position = dynamics.langevin_move(
                position, gradient, noise, self.step_size, temperature=temperature
            )
        return position.detach()

    def _noise(self, position: Tensor, index: int) -> tuple[Tensor, Tensor | float]:
        """Noise of a step, and its temperature."""
        temperature = self.temperature
        if callable(temperature):
            temperature = torch.as_tensor(temperature(index)).to(position)
        noise = torch.randn_like(position)
        return noise if self.noise_scale == 1 else self.noise_scale * noise, temperature


@compilable
def _langevin(
    potential: Potential,
    position: Tensor,
    gradient: Tensor,
    noise: Tensor,
    step_size: Tensor,
    scale: Tensor,
    temperature: Tensor | float,
) -> tuple[Tensor, Tensor, dynamics.TransitionInfo]:
    position = dynamics.langevin_move(
        position, gradient, noise, step_size, scale=scale, temperature=temperature
    )
    value, gradient = value_and_gradient(potential, position)
    return position, gradient, dynamics.unadjusted_info(value, gradient)
