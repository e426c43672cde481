"""Potentials over unconstrained space: what samplers walk on and objectives compare."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any, Protocol, runtime_checkable

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import biject_to

__all__ = [
    "Potential",
    "Tilted",
    "compilable",
    "compiled_steps",
    "is_unconstrained",
    "only_starting_values",
    "starting_values",
    "to_unconstrained",
    "unconstrained_potential",
    "value_and_gradient",
]

_only_starting_values: ContextVar[bool] = ContextVar("only_starting_values", default=False)

Potential = Callable[[Tensor], Tensor]
Step = Callable[..., Any]

_compiled_steps: ContextVar[bool] = ContextVar("compiled_steps", default=False)


@runtime_checkable
class Tilted(Protocol):
    """What an energy-based distribution has and no other does."""

    base: Any

    def potential(self, value: Tensor) -> Tensor:
        """Minus the log-density up to a constant, with gradients in everything."""
        ...

    def start(self, sample_shape: torch.Size) -> Tensor:
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
    bijection = to_unconstrained(distribution)

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


def value_and_gradient(potential: Potential, position: Tensor) -> tuple[Tensor, Tensor]:
    """Potentials, shape ``(*chains,)``, and their gradients, shape of ``position``; detached."""
    if torch.compiler.is_compiling():
        gradient, value = torch.func.grad_and_value(_total, has_aux=True)(position, potential)
        return value[1], gradient
    # Draws are wanted under no_grad too (Predictive, initialisation of guides).
    with torch.enable_grad():
        inside = position.detach().requires_grad_()
        value = potential(inside)
        (gradient,) = torch.autograd.grad(value, inside, torch.ones_like(value))
    return value.detach(), gradient


def compilable(step: Step) -> Step:
    """Inside :func:`compiled_steps`, run a function as ``torch.compile`` makes it."""

    @cache
    def compiled() -> Step:  # At first use, for it loads the compiler.
        return torch.compile(step, dynamic=False)

    # Without gradients in parameters, or compiled code would keep what their backward needs.
    @wraps(step)
    @torch.no_grad()
    def either(*args: Any) -> Any:
        return (compiled() if _compiled_steps.get() else step)(*args)

    return either


@contextmanager
def compiled_steps(*, enabled: bool) -> Iterator[None]:
    """Compile the steps of samplers meanwhile."""
    token = _compiled_steps.set(enabled)
    try:
        with warnings.catch_warnings():
            if enabled:
                # Of the compiler's own imports, and of caches that it looks through.
                warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
                warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_")
            yield
    finally:
        _compiled_steps.reset(token)


def _total(position: Tensor, potential: Potential) -> tuple[Tensor, Tensor]:
    value = potential(position)
    return value.sum(), value


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
