"""Densities over unconstrained space, which samplers and objectives work on."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any, Protocol, Self, runtime_checkable

import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.distributions import biject_to

Potential = Callable[[Tensor], Tensor]
Step = Callable[..., Any]

_compiled_steps: ContextVar[bool] = ContextVar("compiled_steps", default=False)


class Target:
    """A density on a support, and its potential over unconstrained space.

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

    def value(self, position: Tensor) -> Tensor:
        """Values at unconstrained positions."""
        return self.bijection(position)

    def position(self, value: Tensor) -> Tensor:
        """Unconstrained positions of values."""
        return self.bijection.inv(value)

    def log_volume(self, position: Tensor, value: Tensor | None = None) -> Tensor:
        """Log-determinant of the Jacobian of :meth:`value`."""
        value = self.value(position) if value is None else value
        return self.bijection.log_abs_det_jacobian(position, value)

    def potential(self, position: Tensor) -> Tensor:
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

    def potential(self, value: Tensor) -> Tensor:
        """Minus the log-density up to a constant, with gradients in everything."""
        ...


def initial_values(distribution: Any, sample_shape: tuple[int, ...]) -> Tensor:
    """Values to start chains from, shape ``(*sample_shape, *batch, *event)``; detached.

    Draws from the base of an energy-based distribution; else standard normal in unconstrained
    space.
    """
    sample_shape = torch.Size(sample_shape)
    if not isinstance(distribution, HasPotential):
        bijection = _bijection(distribution.support, distribution)
        return bijection(torch.randn_like(bijection.inv(distribution.sample(sample_shape))))
    if distribution.base is not None:
        return distribution.base.expand(distribution.batch_shape).sample(sample_shape).detach()
    bijection, energy = _bijection(distribution.support, distribution), distribution.energy
    shape = sample_shape + distribution.batch_shape + distribution.event_shape
    like = next(energy.parameters(), None) if isinstance(energy, nn.Module) else None
    options = {} if like is None else {"dtype": like.dtype, "device": like.device}
    return bijection(torch.randn(bijection.inverse_shape(shape), **options))


def value_and_gradient(potential: Potential, position: Tensor) -> tuple[Tensor, Tensor]:
    """Potentials, shape ``(*chains,)``, and their gradients, shape of ``position``; detached."""
    if torch.compiler.is_compiling():
        gradient, value = torch.func.grad_and_value(_total, has_aux=True)(position, potential)
        return value[1], gradient
    # Draws are needed under no_grad too (Predictive, initialization of guides).
    with torch.enable_grad():
        inside = position.detach().requires_grad_()
        value = potential(inside)
        (gradient,) = torch.autograd.grad(value, inside, torch.ones_like(value))
    return value.detach(), gradient


def compilable(step: Step) -> Step:
    """Wrap a function: inside :func:`compiled_steps`, ``torch.compile`` compiles it."""

    @cache
    def compiled() -> Step:  # At first use, because it imports the compiler.
        return torch.compile(step, dynamic=False)

    # Without gradients in parameters, or compiled code would keep what their backward needs.
    @wraps(step)
    @torch.no_grad()
    def either(*args: Any) -> Any:
        return (compiled() if _compiled_steps.get() else step)(*args)

    return either


@contextmanager
def compiled_steps(*, enabled: bool) -> Iterator[None]:
    """Compile the steps of samplers inside this context."""
    token = _compiled_steps.set(enabled)
    try:
        with warnings.catch_warnings():
            if enabled:
                # From the compiler's own imports, and from caches that it looks through.
                warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
                warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_")
            yield
    finally:
        _compiled_steps.reset(token)


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
    return support is constraints.real


def _total(position: Tensor, potential: Potential) -> tuple[Tensor, Tensor]:
    value = potential(position)
    return value.sum(), value
