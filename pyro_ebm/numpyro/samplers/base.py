"""Protocol of a sampler on JAX arrays, and helpers of the kernels."""

from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jax import Array, random
from numpyro.util import is_prng_key

from pyro_ebm.core.samplers.dynamics import ChainState, TransitionInfo
from pyro_ebm.core.samplers.warmup import initial_step_size
from pyro_ebm.numpyro.samplers.target import Potential, value_and_gradient

Transition = tuple[ChainState, TransitionInfo]


@runtime_checkable
class Sampler(Protocol):
    """Kernel as :mod:`pyro_ebm.core.samplers` describes it; hashable, to be static in ``jit``."""

    @property
    def target_accept_prob(self) -> float | None: ...

    @property
    def adapt_mass_matrix(self) -> bool: ...

    def init(self, potential: Potential, position: Array) -> ChainState: ...

    def step(self, rng_key: Array, potential: Potential, state: ChainState) -> Transition: ...


def check_rng_key(rng_key: Any) -> None:
    """Raise unless this is a random key."""
    if not is_prng_key(rng_key):
        raise TypeError(
            "Expected `rng_key` to be a key, as jax.random.key(0) makes one, got "
            f"{type(rng_key).__name__}."
        )


def initial_state(potential: Potential, position: Array, step_size: float | None) -> ChainState:
    value, gradient = value_and_gradient(potential, position)
    if step_size is None:
        size = initial_step_size(value, gradient)
    else:
        size = jnp.asarray(step_size, position.dtype)
    index = jnp.zeros((), int)
    return ChainState(position, value, gradient, None, size, jnp.ones_like(size), index)


def noise_like(rng_key: Array, position: Array) -> Array:
    return random.normal(rng_key, position.shape, position.dtype)
