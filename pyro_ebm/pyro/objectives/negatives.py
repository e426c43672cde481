"""Draws of the model, and their energies beside those of the data."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from pyro_ebm.core.distributions.checks import is_implicit
from pyro_ebm.core.distributions.energy_based import evaluate_energy, scaled_energy
from pyro_ebm.core.objectives import negatives as core
from pyro_ebm.core.objectives.loss import Metrics
from pyro_ebm.pyro.distributions.energy_based import EnergyBased, draw_values, without_plates
from pyro_ebm.pyro.samplers.run import move_values


def draw_negatives(
    settings: core.Negatives, distribution: EnergyBased, value: Tensor, chains: Tensor | None = None
) -> Tensor:
    """Draws started at the base, ``(num_samples, *base.batch_shape, *event)``, or ``chains``."""
    if chains is not None:
        core.check_attached_chains(chains, distribution.event_shape)
        return chains.detach()
    model = without_plates(distribution)
    num_values = value.numel() // prod(distribution.event_shape)
    number = settings.num_samples or max(2, num_values // prod(model.batch_shape))
    sampler = settings.sampler or model.sampler
    num_steps = settings.num_steps or model.num_sampler_steps
    return draw_values(model, sampler, (number,), num_steps)


def move_data(settings: core.Negatives, distribution: EnergyBased, value: Tensor) -> Tensor:
    """Draws started at the values, of their shape."""
    sampler = settings.sampler or distribution.sampler
    num_steps = settings.num_steps or distribution.num_sampler_steps
    return move_values(sampler, distribution, value, num_steps)


def evaluate_energies(distribution: EnergyBased, value: Tensor, negatives: Tensor) -> core.Energies:
    """Energies and potentials with gradients, in one call of the energy.

    Values have shape ``(*batch, *event)`` and negatives ``(num_samples, *context, *event)``, whose
    context broadcasts with ``batch``.
    """
    energies = evaluate_both(
        partial(scaled_energy, distribution), value, negatives, distribution.event_shape
    )
    if distribution.base is None or is_implicit(distribution.base):
        return core.Energies(*energies, *energies)
    densities = [distribution.base.log_prob(x) for x in (value, negatives)]
    return core.Energies(*energies, energies[0] - densities[0], energies[1] - densities[1])


def evaluate_both(
    function: Callable[[Tensor], Tensor],
    value: Tensor,
    negatives: Tensor,
    event_shape: torch.Size,
) -> tuple[Tensor, Tensor]:
    """Results for values and negatives of a function of rows, in one call."""
    both = [x.reshape(-1, *event_shape) for x in (value, negatives)]
    results = evaluate_energy(function, torch.cat(both), event_shape).split([len(x) for x in both])
    shapes = [x.shape[: x.dim() - len(event_shape)] for x in (value, negatives)]
    return results[0].reshape(shapes[0]), results[1].reshape(shapes[1])


def detached_metrics(energies: Any) -> Metrics:
    """Metrics of the energies of values and negatives, the first two entries."""
    return core.energy_metrics(energies[0].detach(), energies[1].detach())
