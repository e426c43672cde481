"""Draws of energy-based distributions: by SMC, on a grid, or by short runs of a kernel."""

import math
from dataclasses import replace
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_ebm.core.distributions.tempered import TemperedTarget
from pyro_ebm.core.samplers.gibbs import kernel_for
from pyro_ebm.core.samplers.grid import NUM_PILOTS
from pyro_ebm.core.samplers.run import ShortRun
from pyro_ebm.core.samplers.settings import SMC
from pyro_ebm.core.samplers.smc_draws import SMCDraws, summarize
from pyro_ebm.core.samplers.truncation import ancestors_of, choose_inside
from pyro_ebm.pyro.distributions.pushforward import Pushforward
from pyro_ebm.pyro.samplers.gibbs import Gibbs
from pyro_ebm.pyro.samplers.grid import Grid, draw_on_grid
from pyro_ebm.pyro.samplers.run import move_values
from pyro_ebm.pyro.samplers.smc import family_sums, lead
from pyro_ebm.pyro.samplers.target import Target, initial_values


@torch.no_grad()
def draw_values(
    distribution: Any, sampler: Any, number: int, num_steps: int, *, has_holes: bool = False
) -> SMCDraws | ShortRun:
    """Draw ``(number, *batch, *event)`` from a distribution without plates; detached.

    With ``has_holes`` energies may be infinite at draws of the base: no chain starts there.
    """
    if isinstance(distribution.base, Pushforward):
        has_holes = has_holes or distribution._is_truncated
        draws: Any = draw_values(
            distribution.latent, sampler, number, num_steps, has_holes=has_holes
        )
        values = distribution.base.noiseless.generate(draws.samples)
        return replace(draws, samples=values)
    if isinstance(sampler, SMC):
        return _run_population(distribution, sampler, number)
    if isinstance(sampler, Grid):
        return _run_grid(distribution, sampler, number)
    values = initial_values(distribution, (number,))
    if has_holes:
        values, _ = choose_inside(distribution.potential(values) < math.inf, values, number)
    return move_values(sampler, distribution, values, num_steps, len(distribution.batch_shape))


def _run_population(distribution: Any, smc: SMC, number: int) -> SMCDraws:
    num_particles = max(smc.num_particles, number)
    values = initial_values(distribution, (num_particles,), needs_draws=True)
    path = TemperedTarget(distribution)
    kernel = None if path.target.columns is None else kernel_for(Gibbs(), path.target)
    with pyro.validation_enabled(is_validate=False):  # Proposals may leave the base's values.
        position, ancestors = path.target.position(values), ancestors_of(distribution, values)
        population, visited = lead(path, position, smc.num_moves, kernel, ancestors)
    chosen = torch.randperm(num_particles, device=values.device)[:number]
    samples = path.target.value(population.finite_positions()[chosen])
    return summarize(population, samples, chosen, ancestors, visited, family_sums)


def _run_grid(distribution: Any, grid: Grid, number: int) -> ShortRun:
    target = Target.of(distribution)
    pilots = target.position(initial_values(distribution, (NUM_PILOTS,)))
    event_shape = pilots.shape[1 + len(distribution.batch_shape) :]

    def log_density(flat: Tensor) -> Tensor:
        value = -target.potential(flat.reshape(flat.shape[:-1] + event_shape))
        # Where a bijection overflows there is no density.
        return torch.where(value.isnan(), -math.inf, value)

    flat = pilots.reshape((*pilots.shape[: pilots.ndim - len(event_shape)], math.prod(event_shape)))
    with pyro.validation_enabled(is_validate=False):
        run = draw_on_grid(grid, log_density, flat, number)
    samples = run.samples.reshape(run.samples.shape[:-1] + event_shape)
    return replace(run, samples=target.value(samples))
