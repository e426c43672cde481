"""What all samplers share: the state of chains, what a step reports, the protocol."""

from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array, random

from pyro_ebm.core.checks import check_positive, check_positive_integer, check_probability
from pyro_ebm.core.samplers.dynamics import accept
from pyro_ebm.numpyro.samplers.target import Potential, value_and_gradient

__all__ = [
    "ChainState",
    "Sampler",
    "Transition",
    "TransitionInfo",
    "advanced",
    "check_steps",
    "decide",
    "initial_state",
    "unadjusted_info",
    "noise_like",
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

    position: Array
    potential: Any
    gradient: Any
    velocity: Any
    step_size: Array
    scale: Array
    index: Array


class TransitionInfo(NamedTuple):
    """What happened in one step, in ArviZ's words.

    Attributes:
        acceptance_rate: Probability of acceptance, shape ``(*chains,)``.
        diverging: Whether the move lost more than 1,000 nats, or, without acceptance, met a
            gradient that is not finite; shape ``(*chains,)``.
    """

    acceptance_rate: Array
    diverging: Array


Transition = tuple[ChainState, TransitionInfo]


@runtime_checkable
class Sampler(Protocol):
    """What a sampler has: ``init``, ``step``, and what it wants of a run.

    Samplers are hashable (frozen dataclasses are), so that compiled functions are used again.
    """

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

    def init(self, potential: Potential, position: Array) -> ChainState:
        """Start chains at a position."""
        ...

    def step(self, rng_key: Array, potential: Potential, state: ChainState) -> Transition:
        """Move every chain once."""
        ...


def initial_state(potential: Potential, position: Array, step_size: float) -> ChainState:
    """Chains at a position, before the first step; one gradient."""
    value, gradient = value_and_gradient(potential, position)
    size = jnp.asarray(step_size, position.dtype)
    index = jnp.zeros((), int)
    return ChainState(position, value, gradient, None, size, jnp.ones_like(size), index)


def noise_like(rng_key: Array, state: ChainState) -> Array:
    """Standard normal numbers, one for each coordinate of each chain."""
    return random.normal(rng_key, state.position.shape, state.position.dtype)


def units(state: ChainState) -> tuple[Array, Array]:
    """Step size and scale, broadcasting with positions."""
    step_size = state.step_size
    if step_size.ndim:
        num_event_dims = state.position.ndim - state.potential.ndim
        step_size = step_size.reshape(step_size.shape + (1,) * num_event_dims)
    return step_size, state.scale


def decide(
    rng_key: Array, state: ChainState, proposal: tuple[Array, ...], log_ratio: Array
) -> Transition:
    """Accept or reject in every chain."""
    accepted = jnp.log(random.uniform(rng_key, log_ratio.shape, log_ratio.dtype)) < log_ratio
    moved = jax.tree.map(partial(accept, accepted), proposal, state[:3])
    rate = jnp.exp(jnp.minimum(log_ratio, 0.0))
    return advanced(state, *moved), TransitionInfo(rate, log_ratio < _DIVERGENCE)


def advanced(
    state: ChainState, position: Array, potential: Array | None, gradient: Array | None
) -> ChainState:
    """The state after a step."""
    return state._replace(
        position=position, potential=potential, gradient=gradient, index=state.index + 1
    )


def unadjusted_info(value: Array, gradient: Array) -> TransitionInfo:
    """What a step without acceptance has to say, given potential and gradient on its way.

    Of the potential the shape alone is used, so that compiled code need not compute it.
    """
    event_axes = tuple(range(value.ndim, gradient.ndim))
    finite = jnp.isfinite(gradient)
    finite = finite.all(axis=event_axes) if event_axes else finite
    return TransitionInfo(jnp.ones_like(value), ~finite)


def check_steps(sampler: Any) -> None:
    """Raise if what all samplers are given is out of range."""
    check_positive("step_size", sampler.step_size)
    check_positive_integer("num_steps", sampler.num_steps)
    if sampler.target_acceptance is not None:
        check_probability("target_acceptance", sampler.target_acceptance)
