"""Densities over unconstrained space, which samplers and objectives work on."""

from collections.abc import Callable
from typing import Any, Protocol, Self, runtime_checkable

import jax
from jax import Array, lax, random
from numpyro.distributions import biject_to, constraints

Potential = Callable[[Array], Array]


class Target:
    """A density on a support, and its potential over unconstrained space.

    No pytree: make it inside compiled functions.

    Args:
        support: Constraint on the values.
        negative_log_density: Function of values, up to a constant.
        distribution: Named in the error, if there is one.

    Raises:
        ValueError: If the support is discrete, or has no known bijection to unconstrained space.
    """

    def __init__(
        self, support: Any, negative_log_density: Potential, distribution: Any = None
    ) -> None:
        self.negative_log_density = negative_log_density
        self.bijection = _bijection(support, distribution)
        self.is_unconstrained = is_real(support)

    @classmethod
    def of(cls, distribution: Any) -> Self:
        """Target of a distribution; gradients reach its parameters where its density has them."""
        # An energy-based potential costs less than its log_prob, which holds parameters constant.
        if isinstance(distribution, HasPotential):
            return cls(distribution.support, distribution.potential, distribution)
        return cls(distribution.support, lambda value: -distribution.log_prob(value), distribution)

    def value(self, position: Array) -> Array:
        """Values at unconstrained positions."""
        return self.bijection(position)

    def position(self, value: Array) -> Array:
        """Unconstrained positions of values."""
        return self.bijection.inv(value)

    def log_volume(self, position: Array, value: Array | None = None) -> Array:
        """Log-determinant of the Jacobian of :meth:`value`."""
        value = self.value(position) if value is None else value
        return self.bijection.log_abs_det_jacobian(position, value)

    def potential(self, position: Array) -> Array:
        """Minus the log-density over unconstrained space, ``(*sample, *batch)``."""
        if self.is_unconstrained:
            return self.negative_log_density(position)
        value = self.value(position)
        return self.negative_log_density(value) - self.log_volume(position, value)


@runtime_checkable
class HasPotential(Protocol):
    """The part of an energy-based distribution that samplers use."""

    base: Any
    energy: Any

    def potential(self, value: Array) -> Array:
        """Minus the log-density up to a constant, with gradients in everything."""
        ...


def initial_values(rng_key: Array, distribution: Any, sample_shape: tuple[int, ...]) -> Array:
    """Values to start chains from, shape ``(*sample_shape, *batch, *event)``; detached.

    Draws from the base of an energy-based distribution; else standard normal in unconstrained
    space.
    """
    batch_shape = distribution.batch_shape
    if isinstance(distribution, HasPotential) and distribution.base is not None:
        values = distribution.base.expand(batch_shape).sample(rng_key, tuple(sample_shape))
    else:
        bijection = _bijection(distribution.support, distribution)
        shape = (*sample_shape, *batch_shape, *distribution.event_shape)
        values = bijection(random.normal(rng_key, bijection.inverse_shape(shape)))
    return lax.stop_gradient(values)


def value_and_gradient(potential: Potential, position: Array) -> tuple[Array, Array]:
    """Potentials, shape ``(*chains,)``, and their gradients, shape of ``position``."""

    def total(position: Array) -> tuple[Array, Array]:
        value = potential(position)
        return value.sum(), value

    (_, value), gradient = jax.value_and_grad(total, has_aux=True)(position)
    return value, gradient


def _bijection(support: Any, distribution: Any) -> Any:
    if not support.is_discrete:
        try:
            return biject_to(support)
        except NotImplementedError:
            pass
    of = "" if distribution is None else f" of {distribution}"
    raise ValueError(
        f"Expected a continuous support that maps to unconstrained space, got {support}{of}."
    )


def is_real(support: Any) -> bool:
    """Whether a support is all of space."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return isinstance(support, type(constraints.real))
