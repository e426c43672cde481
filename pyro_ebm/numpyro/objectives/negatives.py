"""Negatives: draws of the model that objectives compare with the data."""

from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from pyro_ebm.core.checks import check_positive_integer, is_implicit
from pyro_ebm.core.evidence.weights import summarize_log_weights
from pyro_ebm.core.infer.metrics import record_figures
from pyro_ebm.numpyro.distributions.bound_energy import evaluate_energy
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.samplers import Sampler

__all__ = [
    "Compared",
    "Negatives",
    "compare",
    "evaluate_both",
    "record_effective_samples",
    "record_energies",
]


@dataclass(frozen=True)
class Negatives:
    """How an objective draws from the model that it trains.

    Args:
        sampler: What moves the draws; the distribution's own by default.
        num_steps: Its steps from the start to a negative; its own ``num_steps`` by default.
        num_negatives: Draws for each element of the base's batch (usually there is one); by
            default as many in all as there are values, and at least 2.

    Raises:
        TypeError: If ``sampler`` is no sampler.
        ValueError: If a number is out of range.
    """

    sampler: Sampler | None = None
    num_steps: int | None = None
    num_negatives: int | None = None

    def __post_init__(self) -> None:
        if self.sampler is not None and not isinstance(self.sampler, Sampler):
            raise TypeError(
                f"Expected `sampler` to have init and step, got {type(self.sampler).__name__}."
            )
        for name in ("num_steps", "num_negatives"):
            if getattr(self, name) is not None:
                check_positive_integer(name, getattr(self, name))

    def draw(
        self, rng_key: Array, distribution: EnergyBased, value: Array, chains: Array | None = None
    ) -> Array:
        """Draws that started at the base, shape ``(num_negatives, *base.batch_shape, *event)``.

        Or ``chains``, if given, of shape ``(num_chains, *event)``, as constants.
        """
        if chains is not None:
            if tuple(chains.shape[1:]) != tuple(distribution.event_shape):
                raise ValueError(
                    "Expected chains of the event shape of their site, "
                    f"{tuple(distribution.event_shape)}, got shape {tuple(chains.shape)}."
                )
            return lax.stop_gradient(chains)
        model = distribution.unexpanded
        num_values = value.size // prod(distribution.event_shape)
        number = self.num_negatives or max(2, num_values // prod(model.batch_shape))
        sampler = self.sampler or model.sampler
        return model.draw(rng_key, sampler, (number,), self.num_steps)

    def move(self, rng_key: Array, distribution: EnergyBased, value: Array) -> Array:
        """Draws that started at ``value``, of its shape."""
        return distribution.move(
            rng_key, self.sampler or distribution.sampler, value, self.num_steps
        )


class Compared(NamedTuple):
    """Energies of values and of negatives.

    Attributes:
        positive_energy: Of the values, shape ``(*batch,)``.
        negative_energy: Of the negatives, shape ``(num_negatives, *context)``.
        positive: Energy minus log-density of the base, of the values.
        negative: The same of the negatives.
    """

    positive_energy: Array
    negative_energy: Array
    positive: Array
    negative: Array

    @property
    def mean_square_energy(self) -> Array:
        """Of each value and, on average, of the negatives; what penalties are made of."""
        return self.positive_energy**2 + (self.negative_energy**2).mean(0)


def compare(distribution: EnergyBased, value: Array, negatives: Array) -> Compared:
    """Energies and potentials of values and negatives, with gradients, in one call of the energy.

    Args:
        distribution: Any batch shape.
        value: Shape ``(*batch, *event)``.
        negatives: Shape ``(num_negatives, *context, *event)``; the context broadcasts with
            ``batch``.

    Returns:
        Records ``energy_gap`` (negatives minus values) and ``energy_scale`` on the way.
    """
    energies = evaluate_both(distribution.evaluate, value, negatives, distribution.event_shape)
    record_energies(*energies)
    if distribution.base is None or is_implicit(distribution.base):
        return Compared(*energies, *energies)
    densities = [distribution.base.log_prob(x) for x in (value, negatives)]
    return Compared(*energies, energies[0] - densities[0], energies[1] - densities[1])


def record_energies(positive: Array, negative: Array) -> None:
    """Record ``energy_gap`` and ``energy_scale`` of values and negatives, of any shapes."""
    positive, negative = lax.stop_gradient((positive, negative))
    record_figures(
        energy_gap=lambda: negative.mean() - positive.mean(),
        energy_scale=lambda: jnp.concatenate([positive.ravel(), negative.ravel()]).std(),
    )


def record_effective_samples(log_weights: Array) -> None:
    """Record ``effective_samples``, the fewest that any column of log-weights is worth."""
    held = lax.stop_gradient(log_weights)
    record_figures(
        effective_samples=lambda: summarize_log_weights(held).effective_sample_size.min()
    )


def evaluate_both(
    function: Any, value: Array, negatives: Array, event_shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """A function from ``(N, *event)`` to ``(N,)`` of values and negatives, in one call of it."""
    both = [x.reshape((-1, *event_shape)) for x in (value, negatives)]
    results = evaluate_energy(function, jnp.concatenate(both), event_shape)
    shapes = [x.shape[: x.ndim - len(event_shape)] for x in (value, negatives)]
    first = len(both[0])
    return results[:first].reshape(shapes[0]), results[first:].reshape(shapes[1])
