"""Sequential Monte Carlo as a compiled loop over temperatures."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from pyro_ebm.core.samplers import settings
from pyro_ebm.core.samplers import smc as core
from pyro_ebm.numpyro.samplers.base import Sampler, noise_like
from pyro_ebm.numpyro.samplers.target import value_and_gradient


class SMC(settings.SMC):
    """Sequential Monte Carlo; the default ``sampler`` of :class:`EnergyBased`.

    The method and arguments: :class:`pyro_ebm.core.samplers.settings.SMC`.

    Example:
        >>> SMC(num_moves=20)
        SMC(num_moves=20, num_particles=256)
    """


def lead(
    rng_key: Array,
    path: core.Path,
    position: Array,
    num_moves: int,
    kernel: Sampler | None = None,
    ancestors: Array | None = None,
) -> tuple[core.Population, Array]:
    """Lead a population along a path, by MALA or a kernel; return its inverse temperatures too.

    They have shape ``(MAX_TEMPERATURES + 1, *batch)``, 1 after the last. Starts may be copies
    of numbered ``ancestors``.
    """
    evaluate = partial(_evaluate, path, has_gradients=kernel is None)
    population = core.begin(evaluate(position), ancestors)
    visited = jnp.ones((core.MAX_TEMPERATURES + 1, *population.inverse_temperature.shape))
    visited = visited.astype(population.log_normalizer.dtype)
    visited = visited.at[0].set(population.inverse_temperature)

    def goes_on(carry: Any) -> Array:
        _, population, _, count = carry
        return jnp.any(population.is_cooling) & (count < core.MAX_TEMPERATURES)

    def change(carry: Any) -> Any:
        rng_key, population, visited, count = carry
        rng_key, choice_key, move_key = random.split(rng_key, 3)
        population = _resample_population(choice_key, population)
        keys = random.split(move_key, num_moves)
        move = _move if kernel is None else partial(_move_by_kernel, kernel, path)
        population = move(keys, population, evaluate)
        visited = visited.at[count + 1].set(population.inverse_temperature)
        return rng_key, population, visited, count + 1

    start = rng_key, population, visited, 0
    _, population, visited, _ = lax.while_loop(goes_on, change, start)
    return population, visited


def _resample_population(rng_key: Array, population: core.Population) -> core.Population:
    """Choose the next temperature, and resample."""
    search = lax.fori_loop(
        0, core.NUM_HALVINGS, lambda _, search: search.halved(), core.begin_search(population)
    )
    increment = search.increment()
    chosen = resample(rng_key, core.log_weights(population, increment))
    return core.resampled(population, increment, chosen)


def resample(rng_key: Array, log_weights: Array) -> Array:
    """Draw as many indices as weights by stratified resampling."""
    num_weights = len(log_weights)
    shift = random.uniform(rng_key, log_weights.reshape((num_weights, -1)).shape, log_weights.dtype)
    points = (jnp.arange(num_weights)[:, None] + shift) / num_weights
    return choose(log_weights, points.reshape(log_weights.shape))


def choose(log_weights: Array, points: Array) -> Array:
    """Choose the indices at which cumulative weights reach some points, both ``(*, *batch)``."""
    weights = jax.nn.softmax(log_weights, axis=0).reshape((len(log_weights), -1))
    search = jax.vmap(partial(jnp.searchsorted, side="right"), in_axes=1, out_axes=1)
    flat = points.reshape((len(points), -1))
    chosen = search(jnp.cumsum(weights, axis=0), flat).reshape(points.shape)
    # Rounding may leave the sum of all weights a hair below the last point.
    return jnp.minimum(chosen, len(log_weights) - 1)


def family_sums(ancestors: Array, weights: Array) -> Array:
    """Add the weights of the descendants of each ancestor; all shapes are ``(N, *batch)``."""
    flat, weights = (x.reshape((len(x), -1)) for x in (ancestors, weights))
    sums = jnp.zeros_like(weights).at[flat, jnp.arange(flat.shape[1])].add(weights)
    return sums.reshape(ancestors.shape)


def _move(keys: Array, population: core.Population, evaluate: Any) -> core.Population:
    def move(population: core.Population, key: Array) -> tuple[core.Population, None]:
        noise_key, accept_key = random.split(key)
        here = population.particles
        uniform = random.uniform(accept_key, here.tilt.shape, here.tilt.dtype)
        noise = noise_like(noise_key, here.position)
        return core.move(population, evaluate, noise, uniform, len(keys)), None

    return lax.scan(move, population, keys)[0]


def _move_by_kernel(
    kernel: Sampler, path: core.Path, keys: Array, population: core.Population, evaluate: Any
) -> core.Population:
    potential = path.at(population.inverse_temperature)

    def move(carry: Any, key: Array) -> tuple[Any, None]:
        population, state = carry
        state, info = kernel.step(key, potential, state)
        population = core.after_step(population, kernel, info.acceptance_rate, len(keys))
        if kernel.target_accept_prob is not None:
            state = state._replace(step_size=jnp.exp(population.log_step_size))
        return (population, state), None

    start = population, core.state_of(population, kernel, potential)
    (population, state), _ = lax.scan(move, start, keys)
    return population._replace(particles=evaluate(state.position))


def _evaluate(path: core.Path, position: Array, *, has_gradients: bool) -> core.Particles:
    if not has_gradients:
        return core.Particles(position, path.start(position), path.tilt(position), None, None)
    # One gradient each: together they would cost one pass more.
    (start, down), (tilt, up) = (value_and_gradient(x, position) for x in (path.start, path.tilt))
    return core.Particles(position, start, tilt, down, up)
