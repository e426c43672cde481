"""How a generator stretches volume: log-determinants and singular values of its Jacobians.

Products are taken in forward mode, and gradients are those of a product in reverse mode. torch's
forward mode gives the right products, but (as of 2.13) silently wrong gradients of them where a
generator has a LayerNorm or InstanceNorm (pytorch issues 196700 and 196699), and so does the
forward product that is made of two reverse ones. Many products of a row run on copies of it:
under ``vmap`` the backward pass of normalization layers fails.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_ebm.core import jacobian as core

__all__ = ["jacobian", "log_det_jtj", "smallest_singular_value"]

Function = Callable[[Tensor], Tensor]


def log_det_jtj(
    generator: Function,
    z: Tensor,
    *,
    method: str = "exact",
    num_iterations: int | None = None,
    num_probes: int = 1,
) -> Tensor:
    r"""Log-determinants of :math:`J^\top J`, twice the logarithm of how volume is stretched.

    .. math::
        \log p_x(G(z)) = \log p_z(z) - \tfrac12 \log\det J^\top J, \qquad
        J = \partial G / \partial z, \qquad \log\det J^\top J = 2 \sum_i \log s_i

    With :math:`s_1 \le \dots \le s_d` the singular values of :math:`J`, the methods are:

    - ``"exact"``: all of J, and a QR or LU factorization. Minus infinity where J has lost rank.
    - ``"smallest_singular_value"``: :math:`2 d \log s_1`, a *lower bound*, with equality only
      where all singular values are equal. With ``num_iterations`` LOBPCG steps, which need
      products with J and never J itself, :math:`s_1` is over-estimated and the result is *no
      bound of either sign*: for 784 dimensions from 128, with singular values from 1 to 1/100,
      half of it is -589.5 exactly, and -257.6 after two steps, above the true -294.7.
      It takes about a hundred steps to come within 5 % (-558.7). It is finite where J has lost
      rank.
    - ``"stochastic"``: Lanczos quadrature for random signs, by products too. *No bound of a single
      draw.* Over probes it is unbiased with as many iterations as latent dimensions; with fewer
      it lies above the truth on average, for Gauss quadrature of a logarithm does, and its
      gradient has a bias of its own. It is finite where J has lost rank.

    Gradients, of first order only, go to ``z`` and to whatever the generator depends on. Those of
    a smallest singular value hold its singular vector constant, which is exact where that is.

    Args:
        generator: Maps ``(N, d)`` to ``(N, D)``, :math:`d \le D`, a row by itself and without
            randomness.
        z: Shape ``(N, d)``.
        method: See above.
        num_iterations: Steps of LOBPCG (default: none, but a singular value decomposition) or of
            Lanczos (default: 32); more Lanczos steps than ``d`` are never taken.
        num_probes: Random vectors a row, for ``"stochastic"``.

    Returns:
        Shape ``(N,)``.

    Raises:
        ValueError: If the arguments do not go together, or the generator gives anything but one
            vector for each latent one, of no fewer dimensions.

    Example:
        >>> import torch
        >>> stretch = torch.tensor([[2.0, 0.0], [1.0, 0.5]])
        >>> log_det_jtj(lambda z: z @ stretch, torch.zeros(1, 2)).tolist()
        [0.0]

    References:
        | Bounds All Around: Training Energy-Based Models with Bidirectional Bounds (Geng, Wang,
          Gao, Frellsen and Hauberg, 2021)
        | https://arxiv.org/abs/2111.00929
    """
    _, num_latent = core.check_latent(z)
    num_iterations = core.check_method(method, num_iterations, num_probes, num_latent)
    if method == "exact":
        return _of_jacobian(core.log_det, generator, z)
    if method == "stochastic":
        return _stochastic(generator, z, num_iterations or num_latent, num_probes)
    value = smallest_singular_value(generator, z, num_iterations=num_iterations)
    return 2.0 * num_latent * core.log_positive(value)


def smallest_singular_value(
    generator: Function, z: Tensor, *, num_iterations: int | None = None
) -> Tensor:
    """Smallest singular values of the Jacobians of a generator.

    With ``num_iterations``, those are LOBPCG steps from a random start, and the result is never
    below the true value. It does not grow with more steps. See :func:`log_det_jtj`.

    Args:
        generator: Maps ``(N, d)`` to ``(N, D)``, a row by itself and without randomness.
        z: Shape ``(N, d)``.
        num_iterations: Of LOBPCG; zero or more. Default: a singular value decomposition.

    Returns:
        Shape ``(N,)``, with gradients of first order in ``z`` and in whatever the generator
        depends on.

    Raises:
        ValueError: As :func:`log_det_jtj`.
    """
    core.check_latent(z)
    if num_iterations is None:
        return _of_jacobian(core.smallest, generator, z)
    maps = _Products(generator, z)
    state = core.begin_descent(maps.product, torch.randn_like(z))
    for _ in range(num_iterations):
        state = core.descend(maps.product, maps.transposed, state)
    image = maps.product(state.vector)
    return maps.inner(core.unit(image), state.vector)


def jacobian(generator: Function, z: Tensor) -> Tensor:
    """Jacobians of a generator, without gradients: :func:`log_det_jtj` has them.

    Args:
        generator: Maps ``(N, d)`` to ``(N, D)``, a row by itself and without randomness.
        z: Shape ``(N, d)``.

    Returns:
        Shape ``(N, D, d)``.

    Raises:
        ValueError: As :func:`log_det_jtj`.
    """
    rows, units = _unit_rows(z)
    return _as_columns(_product(generator, rows, units), len(z))


class _Products:
    """Products with the Jacobians of a generator, a row for each latent value."""

    def __init__(self, generator: Function, z: Tensor) -> None:
        self.generator, self.z = generator, z
        value, self.pull, *_ = torch.func.vjp(generator, z)
        core.check_shapes(z.shape, value.shape)
        self.num_data = value.shape[1]

    def product(self, vectors: Tensor) -> Tensor:
        """Rows of J v, as constants."""
        return _product(self.generator, self.z, vectors)

    def transposed(self, vectors: Tensor) -> Tensor:
        """Rows of u J, as constants."""
        with torch.no_grad():
            return self.pull(vectors)[0]

    def inner(self, left: Tensor, right: Tensor) -> Tensor:
        """Rows of u J v for constant vectors, with gradients."""
        return (self.pull(left)[0] * right).sum(-1)


def _product(generator: Function, z: Tensor, vectors: Tensor) -> Tensor:
    with torch.no_grad():
        value, product, *_ = torch.func.jvp(generator, (z,), (vectors,))
    core.check_shapes(z.shape, value.shape)
    return product


def _of_jacobian(function: Function, generator: Function, z: Tensor) -> Tensor:
    """A function of Jacobians, with gradients of first order."""
    rows, units = _unit_rows(z)
    maps = _Products(generator, rows)
    entries = _as_columns(maps.product(units), len(z))
    with torch.no_grad():
        value, pull, *_ = torch.func.vjp(function, entries)
        (slope,) = pull(torch.ones_like(value))
    change = maps.inner(_as_rows(slope), units).reshape(-1, len(z)).sum(0)
    return _with_gradient(value, change)


def _stochastic(generator: Function, z: Tensor, num_steps: int, num_probes: int) -> Tensor:
    rows = z.repeat(num_probes, 1)
    probe = torch.randint_like(rows, 2) * 2.0 - 1.0
    maps = _Products(generator, rows)
    state = core.begin_bidiagonal(probe, maps.num_data, num_steps)
    for step in range(num_steps):
        state = core.bidiagonalize(maps.product, maps.transposed, step, state)
    value, slope = core.quadrature(state)
    total = _with_gradient(value, 2.0 * maps.inner(slope, probe))
    return total.reshape(num_probes, len(z)).mean(0)


def _with_gradient(value: Tensor, change: Tensor) -> Tensor:
    """The one's value and the other's gradient."""
    return value.detach() + change - change.detach()


def _unit_rows(z: Tensor) -> tuple[Tensor, Tensor]:
    """Copies of latent values, one for each dimension, and the unit vectors for them."""
    num_values, num_latent = core.check_latent(z)
    units = torch.eye(num_latent, dtype=z.dtype, device=z.device)
    return z.repeat(num_latent, 1), units.repeat_interleave(num_values, 0)


def _as_columns(rows: Tensor, num_values: int) -> Tensor:
    return rows.reshape(-1, num_values, rows.shape[-1]).permute(1, 2, 0)


def _as_rows(columns: Tensor) -> Tensor:
    return columns.permute(2, 0, 1).reshape(-1, columns.shape[1])
