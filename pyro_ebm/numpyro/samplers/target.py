"""Targets of samplers and their gradients."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax, random
from numpyro.distributions import biject_to, constraints

from pyro_ebm.core.samplers.target import AbstractTarget, HasPotential

Potential = Callable[[Array], Array]


class Target(AbstractTarget):
    """Target with the bijections of NumPyro; no pytree, so make it inside compiled functions."""

    biject_to = staticmethod(biject_to)

    @staticmethod
    def is_real(support: Any) -> bool:
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        return isinstance(support, type(constraints.real))


def initial_values(rng_key: Array, distribution: Any, sample_shape: tuple[int, ...]) -> Array:
    batch_shape = distribution.batch_shape
    if isinstance(distribution, HasPotential) and distribution.base is not None:
        values = distribution.base.expand(batch_shape).sample(rng_key, tuple(sample_shape))
    else:
        target = Target.of(distribution)
        shape = (*sample_shape, *batch_shape, *distribution.event_shape)
        values = target.value(random.normal(rng_key, target.bijection.inverse_shape(shape)))
    return lax.stop_gradient(values)


def value_and_gradient(potential: Potential, position: Array) -> tuple[Array, Array]:
    def total(position: Array) -> tuple[Array, Array]:
        value = potential(position)
        return value.sum(), value

    (_, value), gradient = jax.value_and_grad(total, has_aux=True)(position)
    return value, gradient
