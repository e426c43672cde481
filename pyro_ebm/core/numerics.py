"""Numerically safe sums of exponentials, and logarithms, for any array library."""

from typing import Any

from array_api_compat import array_namespace

__all__ = ["log_mean_exp", "log_positive", "logsumexp"]


def logsumexp(x: Any, axis: int = 0) -> Any:
    r"""Logarithm of a sum of exponentials along one axis.

    .. math:: \log \sum_i e^{x_i} = m + \log \sum_i e^{x_i - m}, \qquad m = \max_i x_i

    Args:
        x: Array. Entries of minus infinity count as zero terms; a slice of minus infinities
            gives minus infinity.
        axis: The axis that is summed out.

    Returns:
        Array without that axis.
    """
    xp = array_namespace(x)
    # The maximum only shifts the exponentials; where it is infinite, no shift is the safe one.
    shift = xp.max(x, axis=axis, keepdims=True)
    shift = xp.where(xp.isfinite(shift), shift, xp.zeros_like(shift))
    total = xp.log(xp.sum(xp.exp(x - shift), axis=axis))
    return total + xp.squeeze(shift, axis=axis)


def log_mean_exp(x: Any, axis: int = 0) -> Any:
    """Logarithm of a mean of exponentials along one axis; see :func:`logsumexp`."""
    xp = array_namespace(x)
    total = logsumexp(x, axis=axis)
    return total - xp.log(xp.full_like(total, x.shape[axis]))


def log_positive(x: Any) -> Any:
    """Logarithm of what should be above zero, of the smallest such number where it is not."""
    xp = array_namespace(x)
    return xp.log(xp.maximum(x, xp.full_like(x, xp.finfo(x.dtype).smallest_normal)))
