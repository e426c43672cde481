"""Targets of samplers and their gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.distributions import biject_to, constraints

from pyro_ebm.core.samplers.target import AbstractTarget, HasPotential
from pyro_ebm.core.samplers.truncation import (
    NUM_TRIES,
    choose_inside,
    is_inside,
    replace_outside,
)
from pyro_ebm.numpyro.samplers.columns import columns_of

Potential = Callable[[Array], Array]


class Target(AbstractTarget):
    """Target with the bijections of NumPyro; no pytree, so make it inside compiled functions."""

    biject_to = staticmethod(biject_to)
    columns_of = staticmethod(columns_of)
    independent = staticmethod(constraints.independent)

    @staticmethod
    def is_real(support: Any) -> bool:
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        return isinstance(support, type(constraints.real))

    def interior(self, value: Array) -> Array:
        shape = self.bijection.inverse_shape(value.shape)
        return self.value(jnp.zeros(shape, value.dtype))


def initial_values(
    rng_key: Array, distribution: Any, sample_shape: tuple[int, ...], *, needs_draws: bool = False
) -> Array:
    batch_shape = distribution.batch_shape
    if isinstance(distribution, HasPotential) and distribution.base is not None:
        base = distribution.base.expand(batch_shape)
        values = draw_base(rng_key, distribution, base, tuple(sample_shape))
        if distribution._is_truncated and not needs_draws:
            target = Target.of(distribution)
            shape = target.bijection.inverse_shape(values.shape)
            noise = random.normal(random.fold_in(rng_key, NUM_TRIES), shape, values.dtype)
            values = replace_outside(distribution, values, target.value(noise))
    elif (target := Target.of_any(distribution)).columns is not None:
        values = target.position(distribution.sample(rng_key, tuple(sample_shape)))
    else:
        shape = (*sample_shape, *batch_shape, *distribution.event_shape)
        values = target.value(random.normal(rng_key, target.bijection.inverse_shape(shape)))
    return lax.stop_gradient(values)


def draw_base(rng_key: Array, distribution: Any, base: Any, sample_shape: tuple[int, ...]) -> Array:
    """Draw from a base; where the support is narrower, from the base inside of it.

    Where 200 tries did not suffice others that are inside, or NaN where there are none.
    """
    values = base.sample(rng_key, sample_shape)
    if not distribution._is_truncated:
        return values

    def is_outside(state: tuple[Array, Array]) -> Array:
        index, values = state
        return (index < NUM_TRIES) & ~is_inside(distribution, values).all()

    def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
        index, values = state
        fresh = base.sample(random.fold_in(rng_key, index), sample_shape)
        return index + 1, replace_outside(distribution, values, fresh)

    _, values = lax.while_loop(is_outside, again, (jnp.zeros((), int), values))
    if sample_shape:
        values, _ = choose_inside(is_inside(distribution, values), values, sample_shape[0])
    return replace_outside(distribution, values, jnp.full_like(values, jnp.nan))


def promoted(potential: Potential, position: Array) -> Array:
    """Convert numbers to double precision if the potential has it: a loop keeps their type."""
    is_code = not jnp.issubdtype(position.dtype, jnp.floating)
    if not jax.config.read("jax_enable_x64") or position.dtype == jnp.float64 or is_code:
        return position
    return position.astype(jnp.result_type(position, jax.eval_shape(potential, position)))


def value_and_gradient(potential: Potential, position: Array) -> tuple[Array, Array]:
    def total(position: Array) -> tuple[Array, Array]:
        value = potential(position)
        return value.sum(), value

    (_, value), gradient = jax.value_and_grad(total, has_aux=True)(position)
    return value, gradient
