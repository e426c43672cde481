"""Log-determinants and singular values of a generator's Jacobians, with torch.

Gradients are those of a product u J in reverse mode, and a product J v, always a constant, is the
derivative of u J in u. torch's forward mode gives the same J v; but (as of 2.13) the gradients of
either kind of J v are silently wrong where a generator has a LayerNorm or InstanceNorm (pytorch
issues 196700 and 196699), and the first use of forward mode takes seconds and warns. Products of
one row with many vectors run one after another: under ``vmap`` the backward pass of some
normalization layers fails.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pyro_ebm.core.numerics import log_positive
from pyro_ebm.core.objectives import jacobian as core
from pyro_ebm.core.objectives import krylov

Function = Callable[[Tensor], Tensor]


def log_det_jtj(
    generator: Function,
    z: Tensor,
    *,
    method: str = "exact",
    num_iterations: int | None = None,
    num_probes: int = 1,
) -> Tensor:
    """Log-determinants of J'J for each latent value, shape ``(N,)``.

    Methods, gradients and arguments: :mod:`pyro_ebm.core.objectives.jacobian`.

    Raises:
        ValueError: If the arguments do not go together, or shapes rule out full rank.

    Example:
        >>> import torch
        >>> matrix = torch.tensor([[2.0, 0.0], [1.0, 0.5]])
        >>> log_det_jtj(lambda z: z @ matrix, torch.zeros(1, 2))
        tensor([0.])
    """
    _, num_latent = core.check_latent(z)
    num_iterations = core.check_method(method, num_iterations, num_probes, num_latent)
    if method == "exact":
        return _of_jacobian(core.log_det, generator, z)
    if method == "stochastic":
        return _stochastic(generator, z, num_iterations or num_latent, num_probes)
    value = smallest_singular_value(generator, z, num_iterations=num_iterations)
    return 2.0 * num_latent * log_positive(value)


def smallest_singular_value(
    generator: Function, z: Tensor, *, num_iterations: int | None = None
) -> Tensor:
    core.check_latent(z)
    if num_iterations is None:
        return _of_jacobian(core.smallest, generator, z)
    maps = _Products(generator, z)
    state = krylov.begin_descent(maps.product, torch.randn_like(z))
    for _ in range(num_iterations):
        state = krylov.descend(maps.product, maps.transposed, state)
    return maps.inner(krylov.unit(maps.product(state.vector)), state.vector)


def jacobian(generator: Function, z: Tensor) -> Tensor:
    """Jacobians, shape ``(N, D, d)``, without gradients."""
    return _Products(generator, z).entries(_units(z, core.check_latent(z)[1]))


class _Products:
    """Products with Jacobians, a row for each latent value."""

    def __init__(self, generator: Function, z: Tensor) -> None:
        self.generator, self.z = generator, z
        self.zeros = z.new_zeros((len(z), _num_data(generator, z)))
        self.pull: Any = torch.func.vjp(generator, z)[1]

    def product(self, vectors: Tensor) -> Tensor:
        """Rows of J v, as constants."""
        with torch.no_grad():
            return self._push(vectors)[0]

    def transposed(self, vectors: Tensor) -> Tensor:
        """Rows of u J, as constants."""
        with torch.no_grad():
            return self.pull(vectors)[0]

    def inner(self, left: Tensor, right: Tensor) -> Tensor:
        """Rows of u J v for constant vectors, with gradients."""
        return (self.pull(left)[0] * right).sum(-1)

    def entries(self, units: Tensor) -> Tensor:
        """Jacobians, shape ``(N, D, d)``, as constants."""
        return torch.stack([self.product(unit) for unit in units], -1)

    @cached_property
    def _push(self) -> Any:
        return torch.func.vjp(self._pulled, self.zeros)[1]

    def _pulled(self, vectors: Tensor) -> Tensor:
        pull: Any = torch.func.vjp(self.generator, self.z)[1]
        return pull(vectors)[0]


def _of_jacobian(function: Function, generator: Function, z: Tensor) -> Tensor:
    """Apply a function to Jacobians, with gradients of first order."""
    num_latent, num_data = core.check_latent(z)[1], _num_data(generator, z)
    if num_data <= 2 * num_latent:
        # D products u J cost less than d products J v, and have the gradients that J needs.
        return function(_rows(generator, z, num_data))
    maps, units = _Products(generator, z), _units(z, num_latent)
    entries = maps.entries(units)
    if not torch.is_grad_enabled():
        return function(entries)

    def total(entries: Tensor) -> tuple[Tensor, Tensor]:
        terms = function(entries)
        return terms.sum(), terms

    # torch.func refuses autograd within its own transforms.
    slope, value = torch.func.grad(total, has_aux=True)(entries)
    columns = zip(slope.detach().unbind(-1), units, strict=True)
    change = torch.stack([maps.inner(*pair) for pair in columns]).sum(0)
    return _with_gradient(value, change)


def _rows(generator: Function, z: Tensor, num_data: int) -> Tensor:
    """Jacobians by their rows, with gradients."""
    pull: Any = torch.func.vjp(generator, z)[1]
    return torch.stack([pull(unit)[0] for unit in _units(z, num_data)], 1)


def _units(z: Tensor, size: int) -> Tensor:
    """Make unit vectors, each repeated in N rows, shape ``(size, N, size)``."""
    units = torch.eye(size, dtype=z.dtype, device=z.device)
    return units[:, None].expand(-1, len(z), -1)


def _stochastic(generator: Function, z: Tensor, num_steps: int, num_probes: int) -> Tensor:
    rows = z.repeat(num_probes, 1)
    probe = torch.randint_like(rows, 2) * 2.0 - 1.0
    maps = _Products(generator, rows)
    state = krylov.begin_bidiagonal(probe, maps.zeros.shape[1], num_steps)
    for step in range(num_steps):
        state = krylov.bidiagonalize(maps.product, maps.transposed, step, state)
    value, slope = krylov.quadrature(state)
    total = _with_gradient(value, 2.0 * maps.inner(slope, probe))
    return total.reshape(num_probes, len(z)).mean(0)


@torch.no_grad()
def _num_data(generator: Function, z: Tensor) -> int:
    # A call by itself, because torch.func refuses calls in which Pyro makes a parameter.
    shape = generator(z[:1]).shape
    core.check_shapes(z[:1].shape, shape)
    return shape[1]


def _with_gradient(value: Tensor, change: Tensor) -> Tensor:
    """Value of the first and gradient of the second."""
    return value.detach() + change - change.detach()
