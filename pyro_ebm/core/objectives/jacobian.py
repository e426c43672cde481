r"""Change of volume under a generator: arithmetic on Jacobians, one for each latent value.

``log_det_jtj(generator, z, method=..., num_iterations=..., num_probes=...)`` of either host (in
NumPyro with a random key first, None for a method without randomness) returns, for latent values
``(N, d)`` and a generator to ``(N, D)`` that treats rows independently, without randomness, and
has :math:`d \le D`, the numbers ``(N,)``

.. math::
    \log\det J^\top J = 2 \sum_i \log s_i, \qquad J = \partial G / \partial z, \qquad
    \log p_x(G(z)) = \log p_z(z) - \tfrac12 \log\det J^\top J

With :math:`s_1 \le \dots \le s_d` the singular values of :math:`J`, the methods are:

- ``"exact"``: all of J, and a QR or LU factorization. Minus infinity where J has lost rank.
- ``"smallest_singular_value"``: :math:`2 d \log s_1`, a *lower bound*, with equality only where
  all singular values are equal. Default: a singular value decomposition. With ``num_iterations``
  LOBPCG steps, which need products with J and never J itself, :math:`s_1` is over-estimated and
  the result is *no bound of either sign*. Take 784 dimensions from 128, with singular values from
  1 to 1/100, and halve everything: the truth is -294.7 and the bound -589.5; two steps give
  -257.6, above both, and a hundred steps -558.7. The result is finite where J has lost rank.
- ``"stochastic"``: Lanczos quadrature for ``num_probes`` vectors of random signs a row, in
  ``num_iterations`` steps (default: 32, and never more than d), by products too. A single draw is
  *no bound* and scatters (by 21 in the case above, with one probe). With as many iterations as
  latent dimensions, its mean over probes is exact. With fewer it lies above the truth on average,
  as Gauss quadrature of a logarithm does: there by 31 with 8 iterations, by 12 with 16 and by 2.3
  with 32. It is finite where J has lost rank.

Gradients go to ``z`` and to everything the generator depends on, and are right to first order
only. Those of a smallest singular value hold its singular vector constant, which is exact where
the vector is. Those of ``"stochastic"`` are not of the value drawn, but have that of the
log-determinant as their mean, with as many iterations as latent dimensions.

``smallest_singular_value(generator, z, num_iterations=...)`` returns :math:`s_1`, with LOBPCG from
a random start never below the truth and no larger with more steps. ``jacobian(generator, z)``
returns :math:`J`, shape ``(N, D, d)``.

References:
    | Bounds All Around: Training Energy-Based Models with Bidirectional Bounds (Geng, Wang, Gao,
      Frellsen and Hauberg, 2021), https://arxiv.org/abs/2111.00929
"""

import math
from typing import Any

from array_api_compat import array_namespace, device

from pyro_ebm.core.checks import check_choice, check_positive_integer
from pyro_ebm.core.objectives.krylov import finite_matrices

METHODS = ("exact", "smallest_singular_value", "stochastic")

# Default number of Lanczos steps.
_NUM_STEPS = 32


def check_latent(z: Any) -> tuple[int, int]:
    """Return number and dimension of latent values; raise unless these are the axes of ``z``."""
    if z.ndim != 2:
        raise ValueError(f"Expected latent values of shape (N, d), got shape {tuple(z.shape)}.")
    return tuple(z.shape)


def check_shapes(latent_shape: Any, data_shape: Any) -> None:
    """Raise unless a generator can have Jacobians of full rank, by its shapes."""
    num_values, num_latent = latent_shape
    if len(data_shape) != 2 or data_shape[0] != num_values:
        raise ValueError(
            f"Expected the generator to map ({num_values}, {num_latent}) to ({num_values}, D), "
            f"got shape {tuple(data_shape)}."
        )
    if num_latent > data_shape[1]:
        raise ValueError(
            "Expected a generator with at most as many latent as data dimensions, got "
            f"{num_latent} and {data_shape[1]}."
        )


def check_method(method: Any, num_iterations: Any, num_probes: Any, num_latent: int) -> int | None:
    """Return the number of iterations, or None; raise unless the arguments go together."""
    check_choice("method", method, METHODS)
    check_positive_integer("num_probes", num_probes)
    if num_iterations is not None:
        if method == "exact":
            raise ValueError(
                "Expected no `num_iterations` for method 'exact', which does not iterate, got "
                f"{num_iterations!r}."
            )
        minimum = 1 if method == "stochastic" else 0
        check_positive_integer("num_iterations", num_iterations, minimum=minimum)
    if method == "stochastic":
        return min(num_latent, num_iterations or _NUM_STEPS)
    return num_iterations


def log_det(jacobian: Any) -> Any:
    r"""Compute :math:`\log\det J^\top J`, shape ``(N,)``, of Jacobians of shape ``(N, D, d)``.

    Without the product, which squares the condition number. Where :math:`J` has lost rank the
    result is minus infinity, with a gradient of zero.
    """
    xp = array_namespace(jacobian)
    num_data, num_latent = jacobian.shape[1:]
    constants = {"dtype": jacobian.dtype, "device": device(jacobian)}
    degenerate = _log_volume(jacobian) == -math.inf
    # A gradient of infinity times zero would be NaN, so such rows are replaced beforehand.
    identity = xp.eye(num_data, num_latent, **constants)
    log_volume = _log_volume(xp.where(degenerate[:, None, None], identity, jacobian))
    return xp.where(degenerate, xp.full_like(log_volume, -math.inf), 2.0 * log_volume)


def _log_volume(jacobian: Any) -> Any:
    xp = array_namespace(jacobian)
    if jacobian.shape[1] == jacobian.shape[2]:
        return xp.linalg.slogdet(jacobian)[1]
    triangle = xp.linalg.qr(jacobian)[1]
    return xp.sum(xp.log(xp.abs(xp.linalg.diagonal(triangle))), axis=-1)


def smallest(jacobian: Any) -> Any:
    """Compute smallest singular values, shape ``(N,)``, of Jacobians of shape ``(N, D, d)``."""
    xp = array_namespace(jacobian)
    finite = finite_matrices(jacobian)
    values = xp.linalg.svdvals(xp.where(finite, jacobian, xp.zeros_like(jacobian)))[:, -1]
    return xp.where(finite[:, 0, 0], values, xp.full_like(values, math.nan))
