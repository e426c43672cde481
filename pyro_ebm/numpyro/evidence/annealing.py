"""Chains that anneal from the base of an energy-based distribution to it, and back."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from pyro_ebm.core.evidence.annealing import (
    Schedule,
    log_weight_increment,
    mean_where,
    pilot_inverse_temperatures,
    schedule,
    spread_where,
    tuned,
)
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.samplers import ChainState, KineticLangevin, Langevin, Sampler
from pyro_ebm.numpyro.samplers.target import Potential, is_unconstrained, to_unconstrained

__all__ = ["check_exact", "make_draws", "plan", "tempered", "walk"]


def tempered(distribution: EnergyBased, inverse_temperature: Array) -> Potential:
    r"""Potential of :math:`e^{-\beta E} p_0` over unconstrained space.

    Args:
        distribution: Energy :math:`E` and base :math:`p_0`, if there is one.
        inverse_temperature: :math:`\beta`, broadcasts with the base's batch shape.
    """
    bijection, plain = to_unconstrained(distribution), is_unconstrained(distribution)

    def potential(position: Array) -> Array:
        value = bijection(position)
        energy = distribution.evaluate(value)
        # Not zero times infinity: at first, what the energy forbids does not count.
        result = jnp.where(inverse_temperature > 0, inverse_temperature * energy, 0.0)
        if distribution.base is not None:
            result = result - distribution.base.log_prob(value)
        return result if plain else result - bijection.log_abs_det_jacobian(position, value)

    return potential


def plan(
    rng_key: Array,
    distribution: EnergyBased,
    sampler: Sampler,
    position: Array,
    num_temperatures: int,
) -> Schedule:
    """Temperatures and step sizes, learned by chains that start at draws of the base."""
    inverse_temperatures = jnp.asarray(pilot_inverse_temperatures(), position.dtype)
    learned = _pilot_run(rng_key, distribution, sampler, position, inverse_temperatures)
    shares = jnp.linspace(0.0, 1.0, num_temperatures + 1, dtype=position.dtype)
    return _schedule(shares, inverse_temperatures, *learned)


_schedule = jax.jit(schedule)


@partial(jax.jit, static_argnames="sampler")
def _pilot_run(
    rng_key: Array,
    distribution: EnergyBased,
    sampler: Sampler,
    position: Array,
    inverse_temperatures: Array,
) -> tuple[Array, Array]:
    """Distances between temperatures, and logs of step sizes."""
    state = sampler.init(tempered(distribution, inverse_temperatures[0]), position)
    distance = jnp.zeros_like(state.potential[0])
    log_step_size = jnp.log(state.step_size) + distance
    state = state._replace(step_size=jnp.exp(log_step_size))

    def move(carry: Any, at: Any) -> tuple[Any, Any]:
        (state, distance, log_step_size), (key, inverse_temperature) = carry, at
        potential = tempered(distribution, inverse_temperature)
        state, gain = _heat(sampler, potential, state, jnp.exp(log_step_size))
        alive = jnp.isfinite(state.potential)
        state, info = sampler.step(key, potential, state)
        if sampler.target_acceptance is not None:
            rate = mean_where(alive, info.acceptance_rate)
            log_step_size = tuned(log_step_size, rate, sampler.target_acceptance)
        distance = distance + spread_where(alive, gain)
        return (state, distance, log_step_size), (distance, log_step_size)

    keys = random.split(rng_key, len(inverse_temperatures) - 1)
    first = distance, log_step_size
    _, rest = lax.scan(move, (state, *first), (keys, inverse_temperatures[1:]))
    distances, log_step_sizes = jax.tree.map(
        lambda one, more: jnp.concatenate([one[None], more]), first, rest
    )
    return distances, log_step_sizes


@partial(jax.jit, static_argnames="sampler")
def walk(
    rng_key: Array, distribution: EnergyBased, sampler: Sampler, path: Schedule, position: Array
) -> tuple[Array, Array]:
    """Positions at the end of a path, and the log-weights that chains gained on it."""
    inverse_temperatures, step_sizes = path

    def move(carry: Any, at: Any) -> tuple[Any, None]:
        (state, log_weights), (key, inverse_temperature, step_size) = carry, at
        potential = tempered(distribution, inverse_temperature)
        state, gain = _heat(sampler, potential, state, step_size)
        state, _ = sampler.step(key, potential, state)
        return (state, log_weights + gain), None

    state = sampler.init(tempered(distribution, inverse_temperatures[0]), position)
    state = state._replace(step_size=step_sizes[0])
    keys = random.split(rng_key, len(step_sizes) - 1)
    carry = state, jnp.zeros_like(state.potential)
    carry, _ = lax.scan(move, carry, (keys, inverse_temperatures[1:], step_sizes[1:]))
    return carry[0].position, carry[1]


@partial(jax.jit, static_argnames=("sampler", "num_moves"))
def make_draws(
    rng_key: Array,
    distribution: EnergyBased,
    sampler: Sampler,
    step_size: Array,
    position: Array,
    log_weights: Array,
    num_moves: int,
) -> tuple[Array, Array]:
    """Positions drawn by their weights, then moved, and the mean acceptance of the moves."""
    choice_key, chain_key = random.split(rng_key)
    chosen = _chosen(choice_key, log_weights)
    chosen = chosen.reshape(chosen.shape + (1,) * (position.ndim - chosen.ndim))
    potential = tempered(distribution, jnp.ones_like(step_size))

    def move(state: ChainState, key: Array) -> tuple[ChainState, Array]:
        state, info = sampler.step(key, potential, state)
        return state, info.acceptance_rate.mean(0)

    state = sampler.init(potential, jnp.take_along_axis(position, chosen, axis=0))
    state = state._replace(step_size=step_size)
    state, rates = lax.scan(move, state, random.split(chain_key, num_moves))
    return state.position, rates.mean(0)


def _chosen(rng_key: Array, log_weights: Array) -> Array:
    """Stratified resampling: as many indices as weights, each about as often as it weighs."""
    num_weights = len(log_weights)
    flat = jax.nn.softmax(log_weights, axis=0).reshape((num_weights, -1))
    shift = random.uniform(rng_key, flat.shape, flat.dtype)
    points = (jnp.arange(num_weights)[:, None] + shift) / num_weights
    search = partial(jnp.searchsorted, side="right")
    chosen = jax.vmap(search, in_axes=1, out_axes=1)(jnp.cumsum(flat, axis=0), points)
    # Rounding may leave the sum of all weights a hair below the last point.
    return jnp.minimum(chosen, num_weights - 1).reshape(log_weights.shape)


def _heat(
    sampler: Sampler, potential: Potential, state: ChainState, step_size: Array
) -> tuple[ChainState, Array]:
    """The chains at the next temperature, and what that changes of their log-weights."""
    before = state.potential
    state = sampler.init(potential, state.position)._replace(step_size=step_size)
    return state, log_weight_increment(before, state.potential)


def check_exact(sampler: Sampler) -> None:
    """Raise if a sampler does not accept or reject its moves."""
    if isinstance(sampler, Langevin | KineticLangevin):
        raise ValueError(
            "Expected a sampler that accepts or rejects its moves, such as MALA or HMC, for only "
            f"they leave a density invariant and weights unbiased, got {sampler}."
        )
