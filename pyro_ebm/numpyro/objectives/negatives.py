"""Random draws of the model, evaluated together with the data."""

from dataclasses import replace

from jax import Array, lax

from pyro_ebm.core.distributions.context import own_shape
from pyro_ebm.core.objectives import negatives as core
from pyro_ebm.core.samplers.run import ShortRun
from pyro_ebm.numpyro.distributions.draws import draw_values
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased, without_plates
from pyro_ebm.numpyro.samplers.gibbs import default_kernel
from pyro_ebm.numpyro.samplers.run import move_values


def draw_negatives(
    rng_key: Array,
    settings: core.Negatives,
    distribution: EnergyBased,
    value: Array,
    chains: Array | None = None,
) -> ShortRun:
    """Draw ``(num_samples, *base.batch_shape, *event)`` from the base on; or take ``chains``."""
    if chains is not None:
        core.check_attached_chains(chains, distribution)
        return ShortRun(lax.stop_gradient(chains), None)
    model = without_plates(distribution)
    sampler, num_steps = core.sampler_and_steps(settings, model, default_kernel(model))
    number = core.number_of_draws(settings, value, model)
    return core.with_acceptance(sampler, draw_values(rng_key, model, sampler, number, num_steps))


def move_data(
    rng_key: Array, settings: core.Negatives, distribution: EnergyBased, value: Array
) -> ShortRun:
    """Draw from the data on, one negative for each value."""
    sampler, num_steps = core.sampler_and_steps(
        settings, distribution, default_kernel(distribution), from_data=True
    )
    own_ndim = len(own_shape(distribution))
    run = move_values(rng_key, sampler, distribution, value, num_steps, own_ndim, from_data=True)
    return core.with_acceptance(sampler, replace(run, samples=run.samples[None]))
