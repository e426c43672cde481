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
    position = position.detach()
    value, gradient = value_and_gradient(potential, position)
    if step_size is None:
        size = initial_step_size(value, gradient)
    else:
        size = position.new_tensor(step_size)
    return ChainState(position, value, gradient, None, size, torch.ones_like(size), 0)
