"""Chains that anneal from the base of an energy-based distribution to it, and back."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from pyro_ebm.core.evidence import annealing as core
from pyro_ebm.core.numerics import as_real, masked_mean, masked_std
from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.local_units import in_local_units, learns_scales
from pyro_ebm.core.samplers.smc import take_rows
from pyro_ebm.numpyro.samplers.base import Sampler
from pyro_ebm.numpyro.samplers.smc import family_sums, resample


def schedule_from_pilot(
    rng_key: Array, sampler: Sampler, path: core.Path, position: Array, num_temperatures: int
) -> core.Schedule:
    dtype = as_real(position[:1]).dtype
    inverse_temperatures = jnp.asarray(core.pilot_inverse_temperatures(num_temperatures), dtype)
    shares = jnp.linspace(0.0, 1.0, num_temperatures + 1, dtype=dtype)
    measured = _pilot_run(rng_key, sampler, path, inverse_temperatures, position, resamples=True)
    return _equidistant_schedule(shares, inverse_temperatures, *measured)


def pilot_run(
    rng_key: Array,
    sampler: Sampler,
    path: core.Path,
    inverse_temperatures: Array,
    position: Array,
    *,
    resamples: bool = False,
) -> tuple[Array, Array, Array | None]:
    """Measure distances between temperatures, and tune the log of the step size at each.

    With ``resamples``, weights are kept even and coordinates are measured in local units, which
    are returned too.
    """
    state = sampler.init(path.at(inverse_temperatures[0]), position)
    state = core.begin_pilots(sampler, state, learns=resamples)
    distance, log_step_size = jnp.zeros_like(state.potential[0]), jnp.log(state.step_size)
    learns = resamples and learns_scales(sampler)

    def move(carry: Any, at: Any) -> tuple[Any, Any]:
        (paths, distance, log_step_size), (key, inverse_temperature) = carry, at
        potential = path.at(inverse_temperature)
        paths, gain = core.reweight(sampler, potential, paths, jnp.exp(log_step_size))
        distance = distance + masked_std(jnp.isfinite(paths.state.potential), gain)
        if resamples:
            paths = _evened(key, paths)
            paths = paths._replace(state=in_local_units(sampler, paths.state))
        alive = jnp.isfinite(paths.state.potential)
        state, info = sampler.step(key, potential, paths.state)
        if sampler.target_accept_prob is not None:
            rate = masked_mean(alive, info.acceptance_rate)
            log_step_size = log_step_size + (rate - sampler.target_accept_prob)
        paths = paths._replace(state=state)
        scale = state.scale if learns else None
        return (paths, distance, log_step_size), (distance, log_step_size, scale)

    keys = random.split(rng_key, len(inverse_temperatures) - 1)
    start = core.begin_paths(state), distance, log_step_size
    _, rest = lax.scan(move, start, (keys, inverse_temperatures[1:]))
    first = distance, log_step_size, state.scale if learns else None
    return jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), first, rest)


_pilot_run = jax.jit(pilot_run, static_argnames=("sampler", "resamples"))
_equidistant_schedule = jax.jit(core.equidistant_schedule)


def anneal(
    rng_key: Array,
    sampler: Sampler,
    path: core.Path,
    schedule: core.Schedule,
    position: Array,
    *,
    resamples: bool = False,
    ancestors: Array | None = None,
) -> core.Annealed:
    """Move chains along a path; with ``resamples``, resample them where weights are uneven.

    Starts may be copies of numbered ``ancestors``.
    """
    inverse_temperatures, step_sizes, scales = schedule
    state = sampler.init(path.at(inverse_temperatures[0]), position)
    if step_sizes is None:
        step_sizes = jnp.broadcast_to(state.step_size, inverse_temperatures.shape)
    rest = jax.tree.map(lambda x: x[1:], (inverse_temperatures, step_sizes, scales))
    state = core.in_units(state, step_sizes[0], None if scales is None else scales[0])

    def move(paths: core.Paths, at: Any) -> tuple[core.Paths, None]:
        key, (inverse_temperature, *units), is_last = at
        potential = path.at(inverse_temperature)
        paths, _ = core.reweight(sampler, potential, paths, *units)
        if resamples:
            paths = _evened(key, paths, unless=is_last)
        state, _ = sampler.step(key, potential, paths.state)
        return paths._replace(state=state), None

    keys = random.split(rng_key, len(step_sizes) - 1)
    is_last = jnp.arange(len(keys)) == len(keys) - 1
    start = core.begin_paths(state, ancestors)
    paths, _ = lax.scan(move, start, (keys, rest, is_last))
    return core.finish_paths(start, paths, family_sums)


def _evened(key: Array, paths: core.Paths, *, unless: Any = False) -> core.Paths:
    """Resample paths where their weights are uneven."""

    def evened(key: Array, paths: core.Paths) -> core.Paths:
        chosen = resample(random.fold_in(key, 1), paths.log_weights)
        return core.resample_uneven(paths, chosen)

    is_uneven = jnp.any(core.are_uneven(paths.log_weights)) & jnp.logical_not(unless)
    return lax.cond(is_uneven, evened, lambda _, paths: paths, key, paths)


@partial(jax.jit, static_argnames=("sampler", "num_moves"))
def resample_and_move(
    rng_key: Array,
    sampler: Sampler,
    path: core.Path,
    schedule: core.Schedule,
    position: Array,
    log_weights: Array,
    num_moves: int,
) -> tuple[Array, Array]:
    """Resample chains and move them at the end of a path; return the mean acceptance rate too."""
    choice_key, chain_key = random.split(rng_key)
    potential = path.at(schedule.inverse_temperatures[-1])

    def move(state: ChainState, key: Array) -> tuple[ChainState, Array]:
        state, info = sampler.step(key, potential, state)
        return state, info.acceptance_rate.mean(0)

    state = sampler.init(potential, take_rows(position, resample(choice_key, log_weights)))
    state = core.in_units(state, *schedule.last())
    state, rates = lax.scan(move, state, random.split(chain_key, num_moves))
    return state.position, rates.mean(0)
