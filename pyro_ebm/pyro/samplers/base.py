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
    """Markov kernel, vectorized over chains; everything it returns is detached."""

    @property
    def target_accept_prob(self) -> float | None:
        """Acceptance probability that warm-up tunes the step size to, or None."""
        ...

    @property
    def adapt_mass_matrix(self) -> bool:
        """Whether warm-up learns a scale for each coordinate."""
        ...

    def init(self, potential: Potential, position: Tensor) -> ChainState:
        """Start chains at a position of shape ``(*chains, *event)``."""
        ...

    def step(self, potential: Potential, state: ChainState) -> Transition:
        """Move every chain once."""
        ...


def initial_state(potential: Potential, position: Tensor, step_size: float | None) -> ChainState:
    """Start chains at a position, by one gradient."""
    position = position.detach()
    value, gradient = value_and_gradient(potential, position)
    if step_size is None:
        size = initial_step_size(value, gradient)
    else:
        size = position.new_tensor(step_size)
    return ChainState(position, value, gradient, None, size, torch.ones_like(size), 0)
