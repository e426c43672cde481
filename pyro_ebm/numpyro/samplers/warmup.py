"""Warm-up of chains as a scan: its state has fixed shapes."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from pyro_ebm.core.samplers import warmup as core
from pyro_ebm.core.samplers.dynamics import ChainState, TransitionInfo
from pyro_ebm.numpyro.samplers.base import Sampler


class Warmup(NamedTuple):
    """State of a warm-up."""

    averaging: core.DualAveraging
    moments: core.Moments
    brakes: Array
    hotter: tuple["Warmup", ...]


class At(NamedTuple):
    """Flags of a step of a warm-up: whether it learns scales, ends a window, leaves brakes on."""

    learns: Array
    ends: Array
    brakes: Array


def prepare_state(sampler: Sampler, state: ChainState) -> ChainState:
    """Broadcast what warm-up changes to its final shape."""
    if sampler.target_accept_prob is not None:
        batch_shape = state.potential.shape[1:]
        state = state._replace(step_size=jnp.broadcast_to(state.step_size, batch_shape))
    if sampler.adapt_mass_matrix:
        state = state._replace(scale=jnp.broadcast_to(state.scale, state.position.shape[1:]))
    return state._replace(hotter=tuple(prepare_state(sampler, level) for level in state.hotter))


def begin_warmup(sampler: Sampler, state: ChainState) -> Warmup:
    averaging = core.begin_dual_averaging(state.step_size)
    is_tuned = sampler.target_accept_prob is not None
    brakes = jnp.ones_like(state.potential if is_tuned else state.step_size)
    hotter = tuple(begin_warmup(sampler, level) for level in state.hotter)
    return Warmup(averaging, core.begin_moments(state), brakes, hotter)


def braked(state: ChainState, warmup: Warmup) -> ChainState:
    """State with the step sizes that its chains can take now; :func:`adapt` takes it back."""
    hotter = tuple(map(braked, state.hotter, warmup.hotter))
    return state._replace(step_size=state.step_size * warmup.brakes, hotter=hotter)


def unbraked(state: ChainState, before: ChainState) -> ChainState:
    """State with the step sizes that it had before its brakes."""
    hotter = tuple(map(unbraked, state.hotter, before.hotter))
    return state._replace(step_size=before.step_size, hotter=hotter)


def end_warmup(sampler: Sampler, state: ChainState, warmup: Warmup) -> ChainState:
    if sampler.target_accept_prob is None:
        return state
    hotter = tuple(map(partial(end_warmup, sampler), state.hotter, warmup.hotter))
    return state._replace(step_size=core.average_step_size(warmup.averaging), hotter=hotter)


def schedule(num_warmup: int) -> At:
    """List what each step of a warm-up does."""
    index = jnp.arange(num_warmup)
    learns, ends = jnp.zeros(num_warmup, bool), jnp.zeros(num_warmup, bool)
    for start, stop in core.warmup_windows(num_warmup):
        learns |= (index >= start) & (index < stop)
        ends |= index == stop - 1
    return At(learns, ends, index + 1 < core.num_braked(num_warmup))


def adapt(
    sampler: Sampler,
    state: ChainState,
    info: TransitionInfo,
    warmup: Warmup,
    at: At,
    temperature: float = 1.0,
) -> tuple[ChainState, Warmup]:
    """Chains and warm-up after a step."""
    averaging, moments, brakes, _ = warmup
    if sampler.target_accept_prob is not None:
        rate = info.acceptance_rate.mean(0)
        averaging = core.dual_averaging(averaging, rate, sampler.target_accept_prob)
        state = state._replace(step_size=jnp.exp(averaging.log_step_size))
        brakes = core.brake(brakes, info.acceptance_rate)
        brakes = jnp.where(at.brakes, brakes, jnp.ones_like(brakes))
    if sampler.adapt_mass_matrix:
        moments = _where(at.learns, core.update_moments(moments, state), moments)
        end = partial(_end_window, sampler, state, temperature)
        ended = lax.cond(at.ends, end, lambda *kept: (state.scale, *kept), averaging, moments)
        scale, averaging, moments = ended
        state = state._replace(scale=scale)
        if sampler.target_accept_prob is not None:
            state = state._replace(step_size=jnp.exp(averaging.log_step_size))
    temperatures = core.hotter_temperatures(sampler, state)
    levels = zip(state.hotter, info.hotter, warmup.hotter, temperatures, strict=True)
    pairs = [adapt(sampler, s, i, w, at, each) for s, i, w, each in levels]
    state = state._replace(hotter=tuple(level for level, _ in pairs))
    return state, Warmup(averaging, moments, brakes, tuple(learned for _, learned in pairs))


def _end_window(
    sampler: Sampler,
    state: ChainState,
    temperature: float,
    averaging: core.DualAveraging,
    moments: core.Moments,
) -> tuple[Array, core.DualAveraging, core.Moments]:
    scale = core.learned_scale(moments, state, temperature).astype(state.scale.dtype)
    state = state._replace(scale=scale)
    averaging = core.restart_dual_averaging(sampler, state, averaging, temperature)
    return scale, averaging, core.begin_moments(state)


def _where(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(partial(jnp.where, condition), yes, no)
