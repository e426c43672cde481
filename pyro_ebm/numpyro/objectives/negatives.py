"""Random draws of the model, evaluated together with the data."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from pyro_ebm.core.distributions.checks import is_implicit
from pyro_ebm.core.distributions.energy_based import evaluate_energy, scaled_energy
from pyro_ebm.core.objectives import negatives as core
from pyro_ebm.core.objectives.loss import Metrics
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
    num_values = value.size // prod(distribution.event_shape)
    number = settings.num_samples or max(2, num_values // prod(model.batch_shape))
    sampler = settings.sampler or model.sampler
    num_steps = settings.num_steps or model.num_sampler_steps
    return draw_values(rng_key, model, sampler, (number,), num_steps)


def move_data(
    rng_key: Array, settings: core.Negatives, distribution: EnergyBased, value: Array
) -> Array:
    """Draw from the data on, one negative for each value."""
    sampler = settings.sampler or distribution.sampler
    num_steps = settings.num_steps or distribution.num_sampler_steps
    return move_values(rng_key, sampler, distribution, value, num_steps)


def evaluate_energies(distribution: EnergyBased, value: Array, negatives: Array) -> core.Energies:
    """Evaluate everything that an objective compares, in a single call of the energy.

    Shapes are those of :class:`Energies` with event dimensions appended.
    """
    function = partial(scaled_energy, distribution)
    energies = evaluate_both(function, value, negatives, distribution.event_shape)
    if distribution.base is None or is_implicit(distribution.base):
        return core.Energies(*energies, *energies)
    densities = [distribution.base.log_prob(x) for x in (value, negatives)]
    return core.Energies(*energies, energies[0] - densities[0], energies[1] - densities[1])


def evaluate_both(
    function: Callable[[Array], Array],
    value: Array,
    negatives: Array,
    event_shape: tuple[int, ...],
) -> tuple[Array, Array]:
    """Call a function of rows on values and negatives at once."""
    both = [x.reshape((-1, *event_shape)) for x in (value, negatives)]
    results = evaluate_energy(function, jnp.concatenate(both), event_shape)
    shapes = [x.shape[: x.ndim - len(event_shape)] for x in (value, negatives)]
    first = len(both[0])
    return results[:first].reshape(shapes[0]), results[first:].reshape(shapes[1])


def detached_metrics(energies: Any) -> Metrics:
    """Return the metrics of two arrays of energies: of the values, of the negatives."""
    return core.energy_metrics(*lax.stop_gradient(tuple(energies[:2])))
