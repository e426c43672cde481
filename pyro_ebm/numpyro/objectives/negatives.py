"""Random draws of the model, evaluated together with the data."""

from jax import Array, lax

from pyro_ebm.core.objectives import negatives as core
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased, draw_values, without_plates
from pyro_ebm.numpyro.samplers.run import move_values


def draw_negatives(
    rng_key: Array,
    settings: core.Negatives,
    distribution: EnergyBased,
    value: Array,
    chains: Array | None = None,
) -> Array:
    """Draw ``(num_samples, *base.batch_shape, *event)`` from the base on; or take ``chains``."""
    if chains is not None:
        core.check_attached_chains(chains, distribution.event_shape)
        return lax.stop_gradient(chains)
    model = without_plates(distribution)
    sampler, num_steps = core.sampler_and_steps(settings, model)
    number = core.number_of_draws(settings, value, model)
    return draw_values(rng_key, model, sampler, (number,), num_steps)


def move_data(
    rng_key: Array, settings: core.Negatives, distribution: EnergyBased, value: Array
) -> Array:
    """Draw from the data on, one negative for each value."""
    sampler, num_steps = core.sampler_and_steps(settings, distribution)
    return move_values(rng_key, sampler, distribution, value, num_steps)
