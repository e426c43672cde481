"""Draws of the model, and their energies beside those of the data."""

from torch import Tensor

from pyro_ebm.core.objectives import negatives as core
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
    sampler, num_steps = core.sampler_and_steps(settings, model)
    number = core.number_of_draws(settings, value, model)
    return draw_values(model, sampler, (number,), num_steps)


def move_data(settings: core.Negatives, distribution: EnergyBased, value: Tensor) -> Tensor:
    """Draws started at the values, of their shape."""
    sampler, num_steps = core.sampler_and_steps(settings, distribution)
    return move_values(sampler, distribution, value, num_steps)
