"""Protocol of a sampler on tensors, and the first state of its chains."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pyro_ebm.core.samplers.dynamics import ChainState, TransitionInfo
from pyro_ebm.core.samplers.warmup import initial_step_size
from pyro_ebm.pyro.samplers.target import Potential, value_and_gradient

Transition = tuple[ChainState, TransitionInfo]


@runtime_checkable
class Sampler(Protocol):
    """Markov kernel of :mod:`pyro_ebm.core.samplers`; everything it returns is detached."""

    @property
    def target_accept_prob(self) -> float | None: ...

    @property
    def adapt_mass_matrix(self) -> bool: ...

    def init(self, potential: Potential, position: Tensor) -> ChainState: ...

    def step(self, potential: Potential, state: ChainState) -> Transition: ...


def initial_state(potential: Potential, position: Tensor, step_size: float | None) -> ChainState:
    """Start chains at a position, by one gradient."""
    value, gradient = value_and_gradient(potential, position)
    size = initial_step_size(value, gradient) if step_size is None else step_size
    return unknown_state(position, size)._replace(potential=value, gradient=gradient)


def unknown_state(position: Tensor, step_size: Tensor | float) -> ChainState:
    """Start chains at a position without potentials or gradients there."""
    position = position.detach()
    size = torch.as_tensor(step_size).to(position)
    return ChainState(position, None, None, None, size, torch.ones_like(size), 0)
