"""Warm-up of chains as a scan: its state has fixed shapes."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pyro_ebm.core.samplers import warmup as core
from pyro_ebm.core.samplers.dynamics import ChainState, TransitionInfo
from pyro_ebm.numpyro.samplers.base import Sampler


class Warmup(NamedTuple):
    """State of a warm-up."""

    averaging: core.DualAveraging
    moments: core.Moments


def prepare_state(sampler: Sampler, state: ChainState) -> ChainState:
    """Broadcast what warm-up changes to its final shape."""
    if sampler.target_accept_prob is not None:
        batch_shape = state.potential.shape[1:]
        state = state._replace(step_size=jnp.broadcast_to(state.step_size, batch_shape))
    if sampler.adapt_mass_matrix:
        state = state._replace(scale=jnp.broadcast_to(state.scale, state.position.shape[1:]))
    return state


def begin_warmup(state: ChainState) -> Warmup:
    return Warmup(core.begin_dual_averaging(state.step_size), core.begin_moments(state.position))


def end_warmup(sampler: Sampler, state: ChainState, warmup: Warmup) -> ChainState:
    if sampler.target_accept_prob is None:
        return state
    return state._replace(step_size=core.average_step_size(warmup.averaging))


def window_flags(num_warmup: int) -> tuple[Array, Array]:
    """For each step of the warm-up: whether scales are learned in it, whether it ends a window."""
    index = jnp.arange(num_warmup)
    learns, ends = jnp.zeros(num_warmup, bool), jnp.zeros(num_warmup, bool)
    for start, stop in core.warmup_windows(num_warmup):
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
    """Chains and warm-up after a step; ``learns`` and ``ends`` are its flags."""
    averaging, moments = warmup
    if sampler.target_accept_prob is not None:
        rate = info.acceptance_rate.mean(0)
        averaging = core.dual_averaging(averaging, rate, sampler.target_accept_prob)
        state = state._replace(step_size=jnp.exp(averaging.log_step_size))
    if sampler.adapt_mass_matrix:
        moments = _where(learns, core.update_moments(moments, state.position), moments)
        state = state._replace(scale=_where(ends, core.regularized_scale(moments), state.scale))
        moments = _where(ends, core.begin_moments(state.position), moments)
        restarted = core.begin_dual_averaging(core.average_step_size(averaging))
        averaging = _where(ends, restarted, averaging)
    return state, Warmup(averaging, moments)


def _where(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(partial(jnp.where, condition), yes, no)
