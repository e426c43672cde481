"""Potentials over unconstrained space: what samplers walk on and objectives compare."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

import jax
from jax import Array
from numpyro.distributions import biject_to, constraints

__all__ = [
    "Potential",
    "Tilted",
    "is_unconstrained",
    "only_starting_values",
    "starting_values",
    "to_unconstrained",
    "unconstrained_potential",
    "value_and_gradient",
]

_only_starting_values: ContextVar[bool] = ContextVar("only_starting_values", default=False)

Potential = Callable[[Array], Array]


@runtime_checkable
class Tilted(Protocol):
    """What an energy-based distribution has and no other does."""

    base: Any

    def potential(self, value: Array) -> Array:
        """Minus the log-density up to a constant, with gradients in everything."""
        ...

    def start(self, rng_key: Array, sample_shape: tuple[int, ...]) -> Array:
        """Values for chains to start from."""
        ...


def to_unconstrained(distribution: Any) -> Any:
    """The bijection from unconstrained space to a distribution's support.

    Raises:
        ValueError: If the support is discrete, or of a kind that no bijection is known for.
    """
    support = distribution.support
    if not support.is_discrete:
        try:
            return biject_to(support)
        except NotImplementedError:
            pass
    raise ValueError(
        f"Expected a continuous support that maps to unconstrained space, got {support} of "
        f"{distribution}."
    )


def unconstrained_potential(distribution: Any) -> Potential:
    """Minus a distribution's log-density, up to a constant, over unconstrained space.

    Args:
        distribution: A NumPyro distribution with a continuous support.

    Returns:
        Function from ``(*sample, *batch, *unconstrained_event)`` to ``(*sample, *batch)``.
    """
    # An energy-based potential costs less than its log_prob, which holds parameters constant.
    potential = (
        distribution.potential
        if isinstance(distribution, Tilted)
        else lambda value: -distribution.log_prob(value)
    )
    if is_unconstrained(distribution):
        return potential
    bijection = to_unconstrained(distribution)

    def pulled_back(position: Array) -> Array:
        value = bijection(position)
        return potential(value) - bijection.log_abs_det_jacobian(position, value)

    return pulled_back


def is_unconstrained(distribution: Any) -> bool:
    """Whether the support is all of space, so that no change of variables is needed."""
    support = distribution.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return isinstance(support, type(constraints.real))


def value_and_gradient(potential: Potential, position: Array) -> tuple[Array, Array]:
    """Potentials, shape ``(*chains,)``, and their gradients, shape of ``position``."""

    def total(position: Array) -> tuple[Array, Array]:
        value = potential(position)
        return value.sum(), value

    (_, value), gradient = jax.value_and_grad(total, has_aux=True)(position)
    return value, gradient


@contextmanager
def starting_values() -> Iterator[None]:
    """Have energy-based distributions give values to start chains from in place of draws."""
    token = _only_starting_values.set(True)
    try:
        yield
    finally:
        _only_starting_values.reset(token)


def only_starting_values() -> bool:
    """Whether :func:`starting_values` is in force."""
    return _only_starting_values.get()
