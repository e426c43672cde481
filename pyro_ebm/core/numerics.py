"""Shapes, real numbers, safe sums of exponentials, and logarithms, for any array library."""

import math
from functools import cache
from typing import Any

from array_api_compat import array_namespace


def as_real(x: Any) -> Any:
    """Convert integers and Booleans to the default floating-point numbers; others are unchanged."""
    return x * 1.0 if _is_whole(type(x.dtype), x.dtype) else x


@cache
def _is_whole(_: type, dtype: Any) -> bool:
    # By name, once for each type: samplers ask at every step, and `isdtype` takes its time. The
    # class beside it: types of different libraries may have one hash, and refuse comparison.
    return "int" in str(dtype) or "bool" in str(dtype)


def expand_left(x: Any, ndim: int) -> Any:
    """Put dimensions of size one in front, up to ``ndim`` in all."""
    return array_namespace(x).reshape(x, (*(1,) * (ndim - x.ndim), *x.shape))


def expand_right(x: Any, ndim: int) -> Any:
    """Append dimensions of size one, up to ``ndim`` in all."""
    return array_namespace(x).reshape(x, (*x.shape, *(1,) * (ndim - x.ndim)))


def with_first_counted(x: Any, is_counted: Any) -> Any:
    """Replace rows that do not count, shape ``(*rows,)``, by the first that does."""
    xp = array_namespace(x)
    first = xp.argmax(xp.astype(xp.reshape(is_counted, (-1,)), xp.int32))
    row = xp.reshape(x, (-1, *x.shape[is_counted.ndim :]))[first]
    return xp.where(expand_right(is_counted, x.ndim), x, row)


def sum_event(x: Any, event_ndim: int) -> Any:
    """Sum over the last dimensions."""
    # Reshaped, because some libraries take an empty tuple of axes to mean all of them.
    batch_shape = x.shape[: x.ndim - event_ndim]
    num_coordinates = math.prod(x.shape[x.ndim - event_ndim :])
    xp = array_namespace(x)
    return xp.sum(xp.reshape(x, (*batch_shape, num_coordinates)), axis=-1)


def row_numbers(x: Any) -> Any:
    """Return the number of its row for each element, of the first axis from zero; integers."""
    xp = array_namespace(x)
    return xp.cumulative_sum(xp.astype(xp.ones_like(x), xp.int32), axis=0) - 1


def at_least_single(x: Any) -> Any:
    """Convert numbers in half precision, whose squares overflow; others are unchanged."""
    xp = array_namespace(x)
    return xp.astype(x, xp.float32) if xp.finfo(x.dtype).bits < 32 else x  # noqa: PLR2004


def logsumexp(x: Any, axis: int = 0) -> Any:
    r"""Compute the logarithm of a sum of exponentials along one axis, which is summed out.

    .. math:: \log \sum_i e^{x_i} = m + \log \sum_i e^{x_i - m}, \; m = \lfloor \max_i x_i \rfloor

    Entries of minus infinity count as zero terms; a slice of them gives minus infinity.
    """
    xp = array_namespace(x)
    if (native := getattr(xp, "logsumexp", None)) is not None:  # Of torch, in half the time.
        return native(x, axis)
    # A shift must have no derivative, and a floor has none: where a compiler rounds `x` otherwise
    # in the maximum than beside it, no entry is the largest, and the derivative of the maximum NaN.
    shift = xp.floor(xp.max(x, axis=axis, keepdims=True))
    # Where the maximum is infinite, no shift is the safe one.
    shift = xp.where(xp.isfinite(shift), shift, xp.zeros_like(shift))
    total = xp.log(xp.sum(xp.exp(x - shift), axis=axis))
    return total + xp.squeeze(shift, axis=axis)


def log_mean_exp(x: Any, axis: int = 0) -> Any:
    """Compute the logarithm of a mean of exponentials along one axis; see :func:`logsumexp`."""
    xp = array_namespace(x)
    total = logsumexp(x, axis=axis)
    return total - xp.log(xp.full_like(total, x.shape[axis]))


def effective_sample_size(log_weights: Any) -> Any:
    r"""Compute Kish's effective sample size, :math:`(\sum_k w_k)^2 / \sum_k w_k^2`, from 1 to K.

    Log-weights have shape ``(K, *batch)``, the result ``(*batch,)``; 0 where no weight is positive.
    """
    xp = array_namespace(log_weights)
    highest = xp.max(log_weights, axis=0)
    finite = xp.where(highest > -math.inf, highest, xp.zeros_like(highest))
    # Logarithms of large sums would differ by rounding alone. A floor has no derivative.
    weights = xp.exp(log_weights - xp.floor(finite))
    # Means, as sums of half-precision numbers overflow.
    squares = xp.mean(weights**2, axis=0)
    positive = xp.where(squares == 0, xp.ones_like(squares), squares)
    return log_weights.shape[0] * (xp.mean(weights, axis=0) ** 2 / positive)


def log_positive(x: Any) -> Any:
    """Compute a logarithm, that of the smallest normal number where ``x`` is not above zero."""
    xp = array_namespace(x)
    return xp.log(xp.maximum(x, xp.full_like(x, xp.finfo(x.dtype).smallest_normal)))


def masked_mean(keep: Any, x: Any) -> Any:
    """Return the mean over the chains (the first axis) that are kept; zero where none is."""
    xp = array_namespace(x)
    count = xp.sum(xp.astype(keep, x.dtype), axis=0)
    total = xp.sum(xp.where(keep, x, xp.zeros_like(x)), axis=0)
    return total / xp.where(count > 0, count, xp.ones_like(count))


def masked_std(keep: Any, x: Any) -> Any:
    """Return the standard deviation over the chains (the first axis) that are kept."""
    return masked_mean(keep, (x - masked_mean(keep, x)) ** 2) ** 0.5
