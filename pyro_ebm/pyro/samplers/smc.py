"""Sequential Monte Carlo, temperature by temperature."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_ebm.core.samplers import settings
from pyro_ebm.core.samplers import smc as core
from pyro_ebm.pyro.samplers.base import Sampler
from pyro_ebm.pyro.samplers.target import value_and_gradient


class SMC(settings.SMC):
    """Sequential Monte Carlo; the default ``sampler`` of :class:`EnergyBased`.

    The method and arguments: :class:`pyro_ebm.core.samplers.settings.SMC`.

    Example:
        >>> SMC(num_moves=20)
        SMC(num_moves=20, num_particles=256)
    """


@torch.no_grad()
def lead(
    path: core.Path,
    position: Tensor,
    num_moves: int,
    kernel: Sampler | None = None,
    ancestors: Tensor | None = None,
) -> tuple[core.Population, Tensor]:
    """Lead a population along a path; return its inverse temperatures too, ``(K + 1, *batch)``.

    Particles are moved by MALA, or by a kernel. Starts may be copies of numbered ``ancestors``.
    """
    evaluate = partial(_evaluate, path, has_gradients=kernel is None)
    population = core.begin(evaluate(position), ancestors)
    visited = [population.inverse_temperature]
    while population.is_cooling.any() and len(visited) <= core.MAX_TEMPERATURES:
        search = core.begin_search(population)
        for _ in range(core.NUM_HALVINGS):
            search = search.halved()
        increment = search.increment()
        chosen = resample(core.log_weights(population, increment))
        population = core.resampled(population, increment, chosen)
        move = _move if kernel is None else partial(_move_by_kernel, kernel, path)
        population = move(population, evaluate, num_moves)
        visited.append(population.inverse_temperature)
    return population, torch.stack(visited)


def resample(log_weights: Tensor) -> Tensor:
    """Draw as many indices as weights by stratified resampling."""
    steps = torch.arange(len(log_weights), device=log_weights.device)
    shift = torch.rand_like(log_weights.movedim(0, -1).contiguous()).movedim(-1, 0)
    steps = steps.reshape((-1, *(1 for _ in shift.shape[1:])))
    return choose(log_weights, (steps + shift) / len(log_weights))


def choose(log_weights: Tensor, points: Tensor) -> Tensor:
    """Choose the indices at which cumulative weights reach some points, both ``(*, *batch)``."""
    weights = log_weights.softmax(0).movedim(0, -1).contiguous()
    points = points.movedim(0, -1).contiguous()
    chosen = torch.searchsorted(weights.cumsum(-1), points, right=True)
    # Rounding may leave the sum of all weights a hair below the last point.
    return chosen.clamp(max=len(log_weights) - 1).movedim(-1, 0)


def family_sums(ancestors: Tensor, weights: Tensor) -> Tensor:
    """Add the weights of the descendants of each ancestor; all shapes are ``(N, *batch)``."""
    return torch.zeros_like(weights).scatter_add(0, ancestors.long(), weights)


def _move(population: core.Population, evaluate: Any, num_moves: int) -> core.Population:
    for _ in range(num_moves):
        noise = torch.randn_like(population.particles.position)
        uniform = torch.rand_like(population.particles.tilt)
        population = core.move(population, evaluate, noise, uniform, num_moves)
    return population


def _move_by_kernel(
    kernel: Sampler, path: core.Path, population: core.Population, evaluate: Any, num_moves: int
) -> core.Population:
    potential = path.at(population.inverse_temperature)
    state = core.state_of(population, kernel, potential)
    for _ in range(num_moves):
        state, info = kernel.step(potential, state)
        population = core.after_step(population, kernel, info.acceptance_rate, num_moves)
        if kernel.target_accept_prob is not None:
            state = state._replace(step_size=population.log_step_size.exp())
    return population._replace(particles=evaluate(state.position))


def _evaluate(path: core.Path, position: Tensor, *, has_gradients: bool) -> core.Particles:
    if not has_gradients:
        return core.Particles(position, path.start(position), path.tilt(position), None, None)
    both = path.start, path.tilt
    (start, down), (tilt, up) = (value_and_gradient(x, position, may_be_flat=True) for x in both)
    return core.Particles(position, start, tilt, down, up)
