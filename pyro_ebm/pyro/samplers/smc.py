"""Sequential Monte Carlo, temperature by temperature."""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from pyro_ebm.core.samplers import settings
from pyro_ebm.core.samplers import smc as core
from pyro_ebm.pyro.samplers.target import value_and_gradient


class SMC(settings.SMC):
    """Sequential Monte Carlo; the default ``sampler`` of :class:`EnergyBased`.

    The method and arguments: :class:`pyro_ebm.core.samplers.settings.SMC`.

    Example:
        >>> SMC(num_moves=20)
        SMC(num_moves=20, num_particles=256)
    """


class Path(Protocol):
    """Both parts of a tempered potential."""

    def start(self, position: Tensor) -> Tensor: ...

    def tilt(self, position: Tensor) -> Tensor: ...


@torch.no_grad()
def lead(path: Path, position: Tensor, num_moves: int) -> tuple[core.Population, Tensor]:
    """Lead a population along a path; return its inverse temperatures too, ``(K + 1, *batch)``."""
    evaluate = partial(_evaluate, path)
    population = core.begin(evaluate(position))
    visited = [population.inverse_temperature]
    while population.is_cooling.any() and len(visited) <= core.MAX_TEMPERATURES:
        bounds = core.widest(population)
        for _ in range(core.NUM_HALVINGS):
            bounds = core.narrow(bounds, population)
        increment = core.next_increment(bounds, population)
        chosen = resample(core.log_weights(population, increment))
        population = core.resampled(population, increment, chosen)
        for _ in range(num_moves):
            noise = torch.randn_like(population.particles.position)
            uniform = torch.rand_like(population.particles.tilt)
            population = core.move(population, evaluate, noise, uniform, num_moves)
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


def _evaluate(path: Path, position: Tensor) -> core.Particles:
    (start, down), (tilt, up) = (value_and_gradient(x, position) for x in (path.start, path.tilt))
    return core.Particles(position, start, tilt, down, up)
