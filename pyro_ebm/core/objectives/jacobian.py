"""How a generator stretches volume: arithmetic on its Jacobians, one for each latent value."""

import math
from typing import Any

from array_api_compat import array_namespace, device

from pyro_ebm.core.checks import check_choice, check_positive_integer
from pyro_ebm.core.objectives.krylov import finite_matrices

__all__ = [
    "METHODS",
    "check_latent",
    "check_method",
    "check_shapes",
    "log_det",
    "smallest",
]

METHODS = ("exact", "smallest_singular_value", "stochastic")

# Lanczos steps where no number is given, and there are as many dimensions.
_NUM_STEPS = 32


def check_latent(z: Any) -> tuple[int, int]:
    """Number and dimension of latent values; raise unless these are the axes of ``z``."""
    if z.ndim != 2:
        raise ValueError(f"Expected latent values of shape (N, d), got shape {tuple(z.shape)}.")
    return tuple(z.shape)


def check_shapes(latent_shape: Any, data_shape: Any) -> None:
    """Raise unless a generator may have a Jacobian of full rank at each of its latent values."""
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
    """Number of iterations of a method; raise unless the arguments go together.

    Returns:
        None where there are none to choose; for ``"stochastic"`` never more than dimensions.
    """
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
    r"""Logarithm of :math:`\det J^\top J`, without forming that product.

    It would square the condition number. Where :math:`J` has lost rank the result is minus
    infinity, with a gradient of zero.

    Args:
        jacobian: Shape ``(N, D, d)``.

    Returns:
        Shape ``(N,)``.
    """
    xp = array_namespace(jacobian)
    num_data, num_latent = jacobian.shape[1:]
    constants = {"dtype": jacobian.dtype, "device": device(jacobian)}
    degenerate = _log_volume(jacobian) == -math.inf
    # A gradient of infinity times zero would be NaN: such rows are exchanged beforehand.
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
    """Smallest singular values, shape ``(N,)``, of Jacobians of shape ``(N, D, d)``."""
    xp = array_namespace(jacobian)
    finite = finite_matrices(jacobian)
    values = xp.linalg.svdvals(xp.where(finite, jacobian, xp.zeros_like(jacobian)))[:, -1]
    return xp.where(finite[:, 0, 0], values, xp.full_like(values, math.nan))
