"""Distributions whose arrays a ``scan`` or ``vmap`` has stacked, one of each for every step."""

import copy
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random, tree_util
from numpyro.distributions import (
    Distribution,
    ExpandedDistribution,
    Independent,
    TransformedDistribution,
    constraints,
)
from numpyro.distributions.batch_util import promote_batch_shape

from pyro_ebm.core.distributions.energy_based import AbstractEnergyBased
from pyro_ebm.core.distributions.known import error_of, identity
from pyro_ebm.numpyro.distributions.bound_energy import ScannedEnergy
from pyro_ebm.numpyro.distributions.joint import Joint
from pyro_ebm.numpyro.distributions.pushforward import Pushforward


class ScannedBase(Distribution):
    """Bases of all steps of a ``scan``, each drawn from and evaluated as in its step.

    NumPyro would reshape their arrays, which is right for some distributions and not in a plate.
    """

    arg_constraints = {}
    pytree_data_fields = ("steps",)
    pytree_aux_fields = ("num_steps",)

    def __init__(self, steps: Any, num_steps: int) -> None:
        self.steps = steps
        self.num_steps = num_steps
        shape = (num_steps, *steps.batch_shape)
        super().__init__(shape, steps.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:
        return bool(self.steps.has_rsample)

    @property
    def support(self) -> Any:
        own = self.steps.support
        # Codes counted by a shape are the same in all steps; a `vmap` would make arrays of them.
        if own.is_discrete and not any(isinstance(x, Array) for x in jax.tree.leaves(own)):
            return own
        supports = self._each(lambda step: step.support)
        return _stacked_support(supports, len(self.steps.shape()))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        return self._draw(lambda step, key: step.sample(key, sample_shape), key, sample_shape)

    def rsample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        return self._draw(lambda step, key: step.rsample(key, sample_shape), key, sample_shape)

    def log_prob(self, value: Array) -> Array:
        return self._map(lambda step, x: step.log_prob(x), value)

    def icdf(self, q: Array) -> Array:
        return self._map(_quantiles, q)

    def _draw(self, draw: Any, key: Array, sample_shape: tuple[int, ...]) -> Array:
        draws = self._each(draw, random.split(key, self.num_steps))
        return jnp.moveaxis(draws, 0, len(sample_shape))

    def _map(self, function: Callable[[Any, Array], Array], value: Array) -> Array:
        value = jnp.broadcast_to(value, jnp.broadcast_shapes(value.shape, self.shape()))
        axis = value.ndim - len(self.shape())
        return jnp.moveaxis(self._each(function, jnp.moveaxis(value, axis, 0)), 0, axis)

    def _each(self, function: Callable[..., Any], *arguments: Array) -> Any:
        return jax.vmap(function, axis_size=self.num_steps)(self.steps, *arguments)


def promote_energy_based(dist: Any) -> Any:
    """Energy-based distribution of all steps, from that of a step with stacked arrays.

    Raises:
        NotImplementedError: If its base is a ``Pushforward``.
    """
    arrays = jax.tree.leaves(dist)
    if not arrays:
        return dist
    new, num_steps, batch_shape = copy.copy(dist), len(arrays[0]), dist.batch_shape
    new._batch_shape = (num_steps, *batch_shape)
    if jax.tree.leaves(dist.energy):
        new.energy = ScannedEnergy(dist.energy, prod(batch_shape))
    if dist.base is not None:
        new.base = _promote_base(dist.base, batch_shape, num_steps)
    new._support = _stacked_support(dist._support, len(dist.shape()))
    if jax.tree.leaves(dist.log_normalizer):
        numbers = jax.vmap(lambda number: (number(), error_of(number)))(dist.log_normalizer)
        numbers = jax.tree.map(partial(_stacked, num_dims=len(batch_shape)), numbers)
        new.log_normalizer = tree_util.Partial(identity, *numbers)
    if dist.context is not None:
        _promote_context(new, dist)
    return new


@promote_batch_shape.register
def promote_transformed(dist: TransformedDistribution) -> Any:
    """Distribution of all steps around an energy of all steps; others are left to NumPyro."""
    if not _is_around_energy(dist):
        return promote_batch_shape.dispatch(Distribution)(dist)
    new = copy.copy(dist)
    new.base_dist = promote_batch_shape(dist.base_dist)
    num_new = len(new.base_dist.batch_shape) - len(dist.base_dist.batch_shape)
    new._batch_shape = new.base_dist.batch_shape[:num_new] + dist.batch_shape
    if num_new:
        move = partial(_stacked, num_dims=len(dist.shape()))
        new.transforms = jax.tree.map(move, dist.transforms)
    return new


def _is_around_energy(dist: Any) -> bool:
    while hasattr(dist, "base_dist"):
        dist = dist.base_dist
    return isinstance(dist, AbstractEnergyBased)


def vmap_over_energy_based(
    dist: Any, energy: Any = None, base: Any = None, context: Any = None, log_normalizer: Any = None
) -> Any:
    """Axes of the arrays of a distribution, a pytree like it."""
    axes = copy.copy(dist)
    axes.energy, axes.base, axes.context, axes._support = energy, base, context, None
    axes.log_normalizer = log_normalizer
    return axes


def _promote_base(base: Any, batch_shape: tuple[int, ...], num_steps: int) -> Distribution:
    if isinstance(base, Pushforward):
        raise NotImplementedError(
            "Expected a base other than a Pushforward inside of `scan`, got one: write the steps "
            "as a plate, or as a loop of Python."
        )
    if isinstance(base, Joint):
        parts = base.parts.items()
        return Joint(**{name: _promote_base(p, batch_shape, num_steps) for name, p in parts})
    return ScannedBase(base.expand(batch_shape), num_steps)


def _promote_context(new: Any, dist: Any) -> None:
    own = dist.context_batch_ndims

    def promote(leaf: Array) -> Array:
        event_shape = leaf.shape[1 + own :]
        leaf = _stacked(leaf, len(dist.batch_shape) + len(event_shape))
        return jnp.broadcast_to(leaf, (*new.batch_shape, *event_shape))

    new.context = jax.tree.map(promote, dist.context)
    new.context_batch_ndims = len(new.batch_shape)


def _stacked_support(supports: Any, num_dims: int) -> Any:
    """Support of values with ``num_dims`` dimensions a step, from stacked bounds."""
    elements = supports
    while isinstance(elements, constraints.independent):
        elements = elements.base_constraint
    return jax.tree.map(lambda leaf: _stacked(leaf, num_dims - elements.event_dim), supports)


def _stacked(leaf: Array, num_dims: int) -> Array:
    """Make room behind the steps, so that each step's array has ``num_dims`` dimensions."""
    return leaf.reshape((len(leaf), *(1,) * (num_dims + 1 - leaf.ndim), *leaf.shape[1:]))


def _quantiles(step: Any, q: Array) -> Array:
    while isinstance(step, ExpandedDistribution | Independent):
        step = step.base_dist
    return step.icdf(q)
