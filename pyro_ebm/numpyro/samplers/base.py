"""Protocol of a sampler, and what the kernels share."""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jax import Array, random

from pyro_ebm.core.samplers.dynamics import ChainState, TransitionInfo
from pyro_ebm.core.samplers.warmup import initial_step_size
from pyro_ebm.numpyro.samplers.target import Potential, value_and_gradient

Transition = tuple[ChainState, TransitionInfo]


@runtime_checkable
class Sampler(Protocol):
    """Markov kernel, vectorized over chains; hashable, and so static in compiled functions."""

    @property
    def target_accept_prob(self) -> float | None:
        """Acceptance probability that warm-up tunes the step size to; None keeps the step size."""
        ...

    @property
    def adapt_mass_matrix(self) -> bool:
        """Whether warm-up learns a scale for each coordinate."""
        ...

    def init(self, potential: Potential, position: Array) -> ChainState:
        """Start chains at a position of shape ``(*chains, *event)``."""
        ...

    def step(self, rng_key: Array, potential: Potential, state: ChainState) -> Transition:
        """Move every chain once."""
        ...


def initial_state(potential: Potential, position: Array, step_size: float | None) -> ChainState:
    """Chains at a position, before the first step; one gradient."""
    value, gradient = value_and_gradient(potential, position)
    if step_size is None:
        size = initial_step_size(value, gradient)
    else:
        size = jnp.asarray(step_size, position.dtype)
    index = jnp.zeros((), int)
    return ChainState(position, value, gradient, None, size, jnp.ones_like(size), index)


def noise_like(rng_key: Array, position: Array) -> Array:
    """Standard normal numbers of the shape of ``position``."""
    return random.normal(rng_key, position.shape, position.dtype)
