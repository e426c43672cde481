"""Chains that anneal from the base of an energy-based distribution to it, and back."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from pyro_ebm.core.evidence import annealing as core
from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.numpyro.samplers.base import Sampler
from pyro_ebm.numpyro.samplers.smc import resample


def schedule_from_pilot(
    rng_key: Array, sampler: Sampler, path: core.Path, position: Array, num_temperatures: int
) -> core.Schedule:
    inverse_temperatures = jnp.asarray(core.pilot_inverse_temperatures(), position.dtype)
    shares = jnp.linspace(0.0, 1.0, num_temperatures + 1, dtype=position.dtype)
    measured = _pilot_run(rng_key, sampler, path, inverse_temperatures, position)
    return _equidistant_schedule(shares, inverse_temperatures, *measured)


def pilot_run(
    rng_key: Array, sampler: Sampler, path: core.Path, inverse_temperatures: Array, position: Array
) -> tuple[Array, Array]:
    """Measure distances between temperatures, and tune the log of the step size at each."""
    state = sampler.init(path.at(inverse_temperatures[0]), position)
    distance = jnp.zeros_like(state.potential[0])
    log_step_size = jnp.log(state.step_size) + distance
    state = state._replace(step_size=jnp.exp(log_step_size))

    def move(carry: Any, at: Any) -> tuple[Any, Any]:
        (state, distance, log_step_size), (key, inverse_temperature) = carry, at
        potential = path.at(inverse_temperature)
        state, gain = core.reweight(sampler, potential, state, jnp.exp(log_step_size))
        alive = jnp.isfinite(state.potential)
        state, info = sampler.step(key, potential, state)
        if sampler.target_accept_prob is not None:
            rate = core.masked_mean(alive, info.acceptance_rate)
            log_step_size = core.tune_log_step_size(log_step_size, rate, sampler.target_accept_prob)
        distance = distance + core.masked_std(alive, gain)
        return (state, distance, log_step_size), (distance, log_step_size)

    keys = random.split(rng_key, len(inverse_temperatures) - 1)
    first = distance, log_step_size
    _, rest = lax.scan(move, (state, *first), (keys, inverse_temperatures[1:]))
    distances, log_step_sizes = jax.tree.map(
        lambda one, more: jnp.concatenate([one[None], more]), first, rest
    )
    return distances, log_step_sizes


_pilot_run = partial(jax.jit, static_argnames="sampler")(pilot_run)
_equidistant_schedule = jax.jit(core.equidistant_schedule)


def anneal(
    rng_key: Array, sampler: Sampler, path: core.Path, schedule: core.Schedule, position: Array
) -> tuple[Array, Array]:
    """Move chains along a path; return their last positions and their log-weights."""
    inverse_temperatures, step_sizes = schedule
    state = sampler.init(path.at(inverse_temperatures[0]), position)
    if step_sizes is None:
        step_sizes = jnp.broadcast_to(state.step_size, inverse_temperatures.shape)
    state = state._replace(step_size=step_sizes[0])

    def move(carry: Any, at: Any) -> tuple[Any, None]:
        (state, log_weights), (key, inverse_temperature, step_size) = carry, at
        potential = path.at(inverse_temperature)
        state, gain = core.reweight(sampler, potential, state, step_size)
        state, _ = sampler.step(key, potential, state)
        return (state, log_weights + gain), None

    keys = random.split(rng_key, len(step_sizes) - 1)
    carry = state, jnp.zeros_like(state.potential)
    carry, _ = lax.scan(move, carry, (keys, inverse_temperatures[1:], step_sizes[1:]))
    return carry[0].position, carry[1]


@partial(jax.jit, static_argnames=("sampler", "num_moves"))
def resample_and_move(
    rng_key: Array,
    sampler: Sampler,
    path: core.Path,
    step_size: Array,
    position: Array,
    log_weights: Array,
    num_moves: int,
) -> tuple[Array, Array]:
    """Resample chains and move them at the end of a path; return the mean acceptance rate too."""
    choice_key, chain_key = random.split(rng_key)
    chosen = resample(choice_key, log_weights)
    chosen = chosen.reshape(chosen.shape + (1,) * (position.ndim - chosen.ndim))
    potential = path.at(jnp.ones_like(step_size))

    def move(state: ChainState, key: Array) -> tuple[ChainState, Array]:
        state, info = sampler.step(key, potential, state)
        return state, info.acceptance_rate.mean(0)

    state = sampler.init(potential, jnp.take_along_axis(position, chosen, axis=0))
    state = state._replace(step_size=step_size)
    state, rates = lax.scan(move, state, random.split(chain_key, num_moves))
    return state.position, rates.mean(0)
