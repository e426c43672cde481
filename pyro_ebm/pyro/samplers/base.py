"""What all samplers share: the state of chains, what a step reports, the protocol."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from pyro_ebm.core.checks import check_positive, check_positive_integer, check_probability
from pyro_ebm.pyro.samplers.target import Potential, value_and_gradient

__all__ = [
    "ChainState",
    "Sampler",
    "Transition",
    "TransitionInfo",
    "advanced",
    "check_steps",
    "decision_info",
    "initial_state",
    "unadjusted_info",
    "units",
]

# A move that loses this many nats has left the region where the integrator works (Stan's number).
_DIVERGENCE = -1000.0


class ChainState(NamedTuple):
    """Where the chains are, with what the next step needs of it.

    Attributes:
        position: Unconstrained values, shape ``(*chains, *event)``.
        potential: Potentials there, shape ``(*chains,)``; None for samplers that need none.
        gradient: Gradients of the potential there, shape of ``position``; None for
            :class:`KineticLangevin`, which needs them elsewhere.
        velocity: Velocities, shape of ``position``; None for samplers that carry none.
        step_size: Step size in use, 0-dimensional or one for each element of the target's batch.
        scale: Standard deviations that coordinates are measured in, broadcasts with ``position``.
        index: Steps taken.
    """

    position: Tensor
    potential: Any
    gradient: Any
    velocity: Any
    step_size: Tensor
    scale: Tensor
    index: int


class TransitionInfo(NamedTuple):
    """What happened in one step, in ArviZ's words.

    Attributes:
        acceptance_rate: Probability of acceptance, shape ``(*chains,)``.
        diverging: Whether the move lost more than 1,000 nats, or, without acceptance, met a
            gradient that is not finite; shape ``(*chains,)``.
    """

    acceptance_rate: Tensor
    diverging: Tensor


Transition = tuple[ChainState, TransitionInfo]


@runtime_checkable
class Sampler(Protocol):
    """What a sampler has: ``init``, ``step``, and what it wants of a run."""

    @property
    def num_steps(self) -> int:
        """Steps that one independent draw takes."""
        ...

    @property
    def target_acceptance(self) -> float | None:
        """Acceptance rate that warm-up tunes the step size to; None leaves it as it is."""
        ...

    @property
    def adapt_scale(self) -> bool:
        """Whether warm-up measures every coordinate's standard deviation."""
        ...

    def init(self, potential: Potential, position: Tensor) -> ChainState:
        """Start chains at a position."""
        ...

    def step(self, potential: Potential, state: ChainState) -> Transition:
        """Move every chain once."""
        ...


def initial_state(potential: Potential, position: Tensor, step_size: float) -> ChainState:
    """Chains at a position, before the first step; one gradient."""
    position = position.detach()
    value, gradient = value_and_gradient(potential, position)
    size = position.new_tensor(step_size)
    return ChainState(position, value, gradient, None, size, torch.ones_like(size), 0)


def units(state: ChainState) -> tuple[Tensor, Tensor]:
    """Step size and scale, broadcasting with positions."""
    step_size = state.step_size
    if step_size.ndim:
        num_event_dims = state.position.ndim - state.potential.ndim
        step_size = step_size.reshape(step_size.shape + (1,) * num_event_dims)
    return step_size, state.scale


def advanced(
    state: ChainState, position: Tensor, potential: Tensor | None, gradient: Tensor | None
) -> ChainState:
    """The state after a step."""
    return state._replace(
        position=position, potential=potential, gradient=gradient, index=state.index + 1
    )


def decision_info(log_ratio: Tensor) -> TransitionInfo:
    """What a log of the Metropolis ratio says of the move."""
    return TransitionInfo(log_ratio.clamp(max=0.0).exp(), log_ratio < _DIVERGENCE)


def unadjusted_info(value: Tensor, gradient: Tensor) -> TransitionInfo:
    """What a step without acceptance has to say, given potential and gradient on its way.

    Of the potential the shape alone is used, so that compiled code need not compute it.
    """
    event_axes = tuple(range(value.ndim, gradient.ndim))
    finite = torch.isfinite(gradient)
    finite = finite.all(dim=event_axes) if event_axes else finite
    return TransitionInfo(torch.ones_like(value), ~finite)


def check_steps(sampler: Any) -> None:
    """Raise if what all samplers are given is out of range."""
    check_positive("step_size", sampler.step_size)
    check_positive_integer("num_steps", sampler.num_steps)
    if sampler.target_acceptance is not None:
        check_probability("target_acceptance", sampler.target_acceptance)
