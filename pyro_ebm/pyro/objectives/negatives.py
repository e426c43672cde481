"""Draws of the model, and their energies beside those of the data."""

from dataclasses import replace

from torch import Tensor

from pyro_ebm.core.distributions.context import own_shape
from pyro_ebm.core.objectives import negatives as core
from pyro_ebm.core.samplers.run import ShortRun
from pyro_ebm.pyro.distributions.draws import draw_values
from pyro_ebm.pyro.distributions.energy_based import EnergyBased, without_plates
from pyro_ebm.pyro.samplers.gibbs import default_kernel
from pyro_ebm.pyro.samplers.run import move_values


def draw_negatives(
    settings: core.Negatives, distribution: EnergyBased, value: Tensor, chains: Tensor | None = None
) -> ShortRun:
    """Draws started at the base, ``(num_samples, *base.batch_shape, *event)``, or ``chains``."""
    if chains is not None:
        core.check_attached_chains(chains, distribution)
        return ShortRun(chains.detach(), None)
    model = without_plates(distribution)
    sampler, num_steps = core.sampler_and_steps(settings, model, default_kernel(model))
    number = core.number_of_draws(settings, value, model)
    return core.with_acceptance(sampler, draw_values(model, sampler, number, num_steps))


def move_data(settings: core.Negatives, distribution: EnergyBased, value: Tensor) -> ShortRun:
    """Draws started at the values, of their shape."""
    sampler, num_steps = core.sampler_and_steps(
        settings, distribution, default_kernel(distribution), from_data=True
    )
    own_ndim = len(own_shape(distribution))
    run = move_values(sampler, distribution, value, num_steps, own_ndim, from_data=True)
    return core.with_acceptance(sampler, replace(run, samples=run.samples[None]))
