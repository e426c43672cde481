"""Warm-up of chains: a step size from acceptance rates, scales from the chains' own spread."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pyro_ebm.core.samplers.warmup import (
    DualAveraging,
    Moments,
    average_step_size,
    begin_dual_averaging,
    begin_moments,
    dual_averaging,
    regularized_scale,
    update_moments,
    warmup_windows,
)
from pyro_ebm.numpyro.samplers import ChainState, Sampler, TransitionInfo

__all__ = ["Warmup", "adapt", "begin_warmup", "end_warmup", "prepare_state", "window_flags"]


class Warmup(NamedTuple):
    """What warm-up has learned so far."""

    averaging: DualAveraging
    moments: Moments


def prepare_state(sampler: Sampler, state: ChainState) -> ChainState:
    """Give what warm-up changes its final shape: compiled loops keep shapes."""
    if sampler.target_acceptance is not None:
        batch_shape = state.potential.shape[1:]
        state = state._replace(step_size=jnp.broadcast_to(state.step_size, batch_shape))
    if sampler.adapt_scale:
        state = state._replace(scale=jnp.broadcast_to(state.scale, state.position.shape[1:]))
    return state


def begin_warmup(state: ChainState) -> Warmup:
    """Nothing learned yet, for chains of shape ``(num_chains, *batch, *event)``."""
    return Warmup(begin_dual_averaging(state.step_size), begin_moments(state.position))


def end_warmup(sampler: Sampler, state: ChainState, warmup: Warmup) -> ChainState:
    """The state with the step size that warm-up ends with."""
    if sampler.target_acceptance is None:
        return state
    return state._replace(step_size=average_step_size(warmup.averaging))


def window_flags(num_warmup: int) -> tuple[Array, Array]:
    """For each step of the warm-up: whether scales learn from it, and whether it ends a window."""
    index = jnp.arange(num_warmup)
    learns, ends = jnp.zeros(num_warmup, bool), jnp.zeros(num_warmup, bool)
    for start, stop in warmup_windows(num_warmup):
        learns |= (index >= start) & (index < stop)
        ends |= index == stop - 1
    return learns, ends


def adapt(
    sampler: Sampler,
    state: ChainState,
    info: TransitionInfo,
    warmup: Warmup,
    learns: Array,
    ends: Array,
) -> tuple[ChainState, Warmup]:
    """State and warm-up after a step, with what has been learned from it.

    Args:
        sampler: Says what is tuned.
        state: Where the chains are now.
        info: What happened in the step.
        warmup: What was learned before.
        learns: Whether scales learn from this step.
        ends: Whether it ends a window.
    """
    averaging, moments = warmup
    if sampler.target_acceptance is not None:
        rate = info.acceptance_rate.mean(0)
        averaging = dual_averaging(averaging, rate, sampler.target_acceptance)
        state = state._replace(step_size=jnp.exp(averaging.log_step_size))
    if sampler.adapt_scale:
        moments = _where(learns, update_moments(moments, state.position), moments)
        state = state._replace(scale=_where(ends, regularized_scale(moments), state.scale))
        moments = _where(ends, begin_moments(state.position), moments)
        restarted = begin_dual_averaging(average_step_size(averaging))
        averaging = _where(ends, restarted, averaging)
    return state, Warmup(averaging, moments)


def _where(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(partial(jnp.where, condition), yes, no)
