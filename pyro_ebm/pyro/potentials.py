"""Potentials over unconstrained space: what samplers walk on and objectives compare."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import biject_to

__all__ = [
    "Potential",
    "Tilted",
    "is_unconstrained",
    "only_starting_values",
    "starting_values",
    "unconstrained_potential",
]

_only_starting_values: ContextVar[bool] = ContextVar("only_starting_values", default=False)

Potential = Callable[[Tensor], Tensor]


@runtime_checkable
class Tilted(Protocol):
    """What an energy-based distribution has and no other does."""

    def potential(self, value: Tensor) -> Tensor:
        """Minus the log-density up to a constant, with gradients in everything."""
        ...

    def start(self, sample_shape: torch.Size) -> Tensor:
        """Values for chains to start from."""
        ...


def unconstrained_potential(distribution: Any) -> Potential:
    """Minus a distribution's log-density, up to a constant, over unconstrained space.

    Args:
        distribution: A Pyro distribution with a continuous support.

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
    bijection = biject_to(distribution.support)

    def pulled_back(position: Tensor) -> Tensor:
        value = bijection(position)
        return potential(value) - bijection.log_abs_det_jacobian(position, value)

    return pulled_back


def is_unconstrained(distribution: Any) -> bool:
    """Whether the support is all of space, so that no change of variables is needed."""
    support = distribution.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real


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
