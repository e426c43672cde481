"""Targets of samplers, their gradients, and the compilation of steps."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any

import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.distributions import biject_to

from pyro_ebm.core.samplers import checks
from pyro_ebm.core.samplers.target import AbstractTarget, HasPotential
from pyro_ebm.core.samplers.truncation import (
    NUM_TRIES,
    choose_inside,
    is_inside,
    replace_outside,
)
from pyro_ebm.pyro.samplers.columns import columns_of

Potential = Callable[[Tensor], Tensor]
Step = Callable[..., Any]

_compiled_steps: ContextVar[bool] = ContextVar("compiled_steps", default=False)


class Target(AbstractTarget):
    """Target with the bijections of torch."""

    biject_to = staticmethod(biject_to)
    columns_of = staticmethod(columns_of)
    independent = staticmethod(constraints.independent)

    @staticmethod
    def is_real(support: Any) -> bool:
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        return support is constraints.real

    def interior(self, value: Tensor) -> Tensor:
        return self.value(value.new_zeros(self.bijection.inverse_shape(value.shape)))


def real_array(name: str, value: Any) -> Tensor:
    """Convert an argument to a tensor of floating-point numbers."""
    tensor = checks.real_array(name, value, torch.as_tensor)
    # Arrays of NumPy have its default type, not that of torch.
    return tensor if isinstance(value, Tensor) else tensor.to(torch.get_default_dtype())


def initial_values(
    distribution: Any, sample_shape: tuple[int, ...], *, needs_draws: bool = False
) -> Tensor:
    """Values to start chains from, shape ``(*sample_shape, *batch, *event)``; detached.

    Draws from the base of an energy-based distribution, inside of its support. Where there are
    none: NaN if one ``needs_draws``, else standard normal in unconstrained space.
    """
    sample_shape = torch.Size(sample_shape)
    is_energy_based = isinstance(distribution, HasPotential)
    if is_energy_based and distribution.base is not None:
        base = distribution.base.expand(distribution.batch_shape)
        values = draw_base(distribution, base, sample_shape)
        if needs_draws or not distribution._is_truncated:
            return values
        target = Target.of(distribution)
        noise = torch.randn_like(target.position(values))
        return replace_outside(distribution, values, target.value(noise))
    target = Target.of_any(distribution)
    if target.columns is not None:
        return target.position(distribution.sample(sample_shape))
    if not is_energy_based:
        return target.value(torch.randn_like(target.position(distribution.sample(sample_shape))))
    shape = sample_shape + distribution.batch_shape + distribution.event_shape
    energy = distribution.energy
    like = next(energy.parameters(), None) if isinstance(energy, nn.Module) else None
    options = {} if like is None else {"dtype": like.dtype, "device": like.device}
    return target.value(torch.randn(target.bijection.inverse_shape(shape), **options))


def draw_base(distribution: Any, base: Any, sample_shape: tuple[int, ...]) -> Tensor:
    """Draws of a base; where the support is narrower, of the base inside of it.

    Draws outside are drawn again. After 200 tries others that are inside take their place; where
    there are none, NaN.
    """
    shape = torch.Size(sample_shape)
    values = base.sample(shape).detach()
    if not distribution._is_truncated:
        return values
    for _ in range(NUM_TRIES):
        if bool(is_inside(distribution, values).all()):
            return values
        values = replace_outside(distribution, values, base.sample(shape).detach())
    if shape:
        values, _ = choose_inside(is_inside(distribution, values), values, shape[0])
    return replace_outside(distribution, values, torch.full_like(values, math.nan))


def value_and_gradient(
    potential: Potential, position: Tensor, *, may_be_flat: bool = False
) -> tuple[Tensor, Tensor]:
    """Potentials, shape ``(*chains,)``, and their gradients, shape of ``position``; detached.

    Raises:
        ValueError: If there is no gradient, unless the potential ``may_be_flat``.
    """
    # In inference mode no other gradient is to be had.
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        gradient, value = torch.func.grad_and_value(_total, has_aux=True)(position, potential)
        return value[1], gradient
    # Draws are needed under no_grad too (Predictive, initialization of guides).
    with torch.enable_grad():
        inside = position.detach().requires_grad_()
        value = potential(inside)
        gradient = None
        if value.requires_grad:
            ones = torch.ones_like(value)
            (gradient,) = torch.autograd.grad(value, inside, ones, allow_unused=True)
    if gradient is None:
        if not may_be_flat:
            raise ValueError(NO_GRADIENT)
        gradient = torch.zeros_like(position)
    return value.detach(), gradient


# The one leaf behind all positions.
ANCHOR = torch.zeros((), requires_grad=True)

NO_GRADIENT = (
    "Expected an energy and a base with a gradient in the value, got none: what `no_grad` or "
    "`detach` hides is no gradient, and steps have none. SMC and Grid draw without one."
)


class Position(torch.autograd.Function):
    """A constant that ``autograd.grad`` can differentiate in, and that is no leaf of a graph.

    ``Position.of(x)`` returns a copy of ``x`` for that: a leaf of its own would look like one more
    parameter, and collect a gradient in each step.
    """

    @classmethod
    def of(cls, x: Tensor) -> Tensor:
        """Make a position of a value."""
        return cls.apply(x.detach(), ANCHOR)

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        return None, None


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


def _total(position: Tensor, potential: Potential) -> tuple[Tensor, Tensor]:
    value = potential(position)
    return value.sum(), value
