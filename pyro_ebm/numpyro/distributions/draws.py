"""Draws of energy-based distributions: by SMC, on a grid, or by short runs of a kernel."""

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, custom_batching, lax, random
from jax.tree_util import register_dataclass

from pyro_ebm.core.distributions.tempered import TemperedTarget
from pyro_ebm.core.samplers.gibbs import kernel_for
from pyro_ebm.core.samplers.grid import NUM_PILOTS
from pyro_ebm.core.samplers.run import ShortRun
from pyro_ebm.core.samplers.settings import SMC
from pyro_ebm.core.samplers.smc_draws import SMCDraws, summarize
from pyro_ebm.core.samplers.truncation import ancestors_of, choose_inside
from pyro_ebm.numpyro.distributions.pushforward import Pushforward
from pyro_ebm.numpyro.samplers.gibbs import Gibbs
from pyro_ebm.numpyro.samplers.grid import Grid, draw_on_grid
from pyro_ebm.numpyro.samplers.run import move_values
from pyro_ebm.numpyro.samplers.smc import family_sums, lead
from pyro_ebm.numpyro.samplers.target import Target, initial_values

register_dataclass(SMCDraws)
register_dataclass(TemperedTarget)


def draw_values(
    rng_key: Array,
    distribution: Any,
    sampler: Any,
    number: int,
    num_steps: int,
    *,
    has_holes: bool = False,
) -> SMCDraws | ShortRun:
    """Draw ``(number, *batch, *event)`` from a distribution without plates; constants.

    With ``has_holes`` energies may be infinite at draws of the base: no chain starts there.
    """
    frozen = lax.stop_gradient(distribution)
    if isinstance(frozen.base, Pushforward):
        has_holes = has_holes or distribution._is_truncated
        draws: Any = draw_values(
            rng_key, frozen.latent, sampler, number, num_steps, has_holes=has_holes
        )
        values = frozen.base.noiseless.generate(draws.samples)
        return replace(draws, samples=values)
    if isinstance(sampler, SMC):
        return _draw_population(rng_key, frozen, sampler, number)
    if isinstance(sampler, Grid):
        return _run_grid(rng_key, frozen, sampler, number)
    start_key, chain_key = random.split(rng_key)
    values = initial_values(start_key, frozen, (number,))
    if has_holes:
        values, _ = choose_inside(frozen.potential(values) < jnp.inf, values, number)
    own_ndim = len(frozen.batch_shape)
    return move_values(chain_key, sampler, frozen, values, num_steps, own_ndim)


def _draw_population(rng_key: Array, distribution: Any, smc: SMC, number: int) -> SMCDraws:
    """Draw by one population; under ``vmap`` over keys alone, by one for all of them."""
    leaves, tree = jax.tree.flatten(distribution)

    def draw(rng_key: Array, *leaves: Array) -> SMCDraws:
        return _run_population(rng_key, jax.tree.unflatten(tree, leaves), smc, number)

    def over_keys(axis_size: int, batched: list[bool], keys: Array, *leaves: Array) -> Any:
        if any(batched[1:]):
            axes = [0 if one else None for one in batched]
            draws = jax.vmap(draw, axes, axis_size=axis_size)(keys, *leaves)
            return draws, jax.tree.map(lambda _: True, draws)
        together = jax.tree.unflatten(tree, leaves)
        draws = _draw_population(keys[0], together, smc, axis_size * number)
        parts = {
            name: leaf.reshape((axis_size, number, *leaf.shape[1:]))
            for name, leaf in (("samples", draws.samples), ("ancestors", draws.ancestors))
        }
        is_batched = jax.tree.map(lambda _: False, draws)
        return replace(draws, **parts), replace(is_batched, samples=True, ancestors=True)

    function = custom_batching.custom_vmap(draw)
    function.def_vmap(over_keys)
    return function(rng_key, *leaves)


def _run_population(rng_key: Array, distribution: Any, smc: SMC, number: int) -> SMCDraws:
    start_key, path_key, order_key = random.split(rng_key, 3)
    num_particles = max(smc.num_particles, number)
    values = initial_values(start_key, distribution, (num_particles,), needs_draws=True)
    path = TemperedTarget(distribution)
    kernel = None if path.target.columns is None else kernel_for(Gibbs(), path.target)
    position, ancestors = path.target.position(values), ancestors_of(distribution, values)
    population, visited = lead(path_key, path, position, smc.num_moves, kernel, ancestors)
    chosen = random.permutation(order_key, num_particles)[:number]
    samples = path.target.value(population.finite_positions()[chosen])
    return summarize(population, samples, chosen, ancestors, visited, family_sums)


def _run_grid(rng_key: Array, distribution: Any, grid: Grid, number: int) -> ShortRun:
    target = Target.of(distribution)
    # By a key of its own, so that one grid does for all keys under `vmap`.
    pilots = target.position(initial_values(random.key(0), distribution, (NUM_PILOTS,)))
    event_shape = pilots.shape[1 + len(distribution.batch_shape) :]

    def log_density(flat: Array) -> Array:
        value = -target.potential(flat.reshape(flat.shape[:-1] + event_shape))
        # Where a bijection overflows there is no density.
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    flat = pilots.reshape((*pilots.shape[: pilots.ndim - len(event_shape)], math.prod(event_shape)))
    run = draw_on_grid(rng_key, grid, log_density, flat, number)
    samples = run.samples.reshape(run.samples.shape[:-1] + event_shape)
    return replace(run, samples=target.value(samples))
