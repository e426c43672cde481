"""Supports narrower than the base's: infinite energies outside, draws of the base inside."""

import math
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.numerics import expand_right, row_numbers

# Times at most that draws of a base outside of the support are drawn again.
NUM_TRIES = 200
# Draws of a base at least, to see which share of them is inside of a narrower support.
NUM_SHARE_DRAWS = 10_000


def truncates(support: Any, base: Any, target_class: Any) -> bool:
    """Return whether a support may be narrower than that of the base; raise if its codes differ."""
    if support is None or (base is None and not support.is_discrete):
        return False
    try:
        own = getattr(base, "support", None)
    except NotImplementedError:  # A base without one: all real numbers.
        own = None
    if support.is_discrete or getattr(own, "is_discrete", False):
        _check_columns(support, own, tuple(getattr(base, "event_shape", ())), target_class)
        return False
    if target_class.is_real(support):
        return False
    return own is None or not _is_same(support, own)


def _check_columns(support: Any, own: Any, event_shape: Any, target_class: Any) -> None:
    """Raise unless a support has the columns of ``own``, that of a base."""
    got = "no base" if own is None else f"one of {own}"
    columns, of_base = (x and target_class.columns_of(x, event_shape) for x in (support, own))
    if not columns or not of_base or columns[0] != of_base[0]:
        raise ValueError(
            f"Expected a `base` on the `support` {support}, such as Bernoulli, Categorical or "
            f"ColumnMarginals, got {got}."
        )


def _is_same(first: Any, second: Any) -> bool:
    # Distributions make their independent constraints anew at each call.
    dims = [getattr(x, "reinterpreted_batch_ndims", None) for x in (first, second)]
    if dims[0] is None or dims[0] != dims[1]:
        return first is second
    return _is_same(first.base_constraint, second.base_constraint)


def is_inside(distribution: Any, value: Any) -> Any:
    """Whether values, shape ``(*batch, *event)``, lie in the support; shape ``(*batch,)``."""
    support = distribution.support
    inside = support.check(value)
    num_dims = len(distribution.event_shape) - support.event_dim
    if num_dims <= 0:
        return inside
    return array_namespace(value).all(inside, axis=tuple(range(-num_dims, 0)))


def move_inside(distribution: Any, value: Any) -> tuple[Any, Any]:
    """Return whether values lie in the support, and values of which those outside are replaced.

    Their place takes some point of the support, where an energy is a number with a gradient.
    """
    inside = is_inside(distribution, value)
    return inside, _where(inside, value, distribution._target().interior(value))


def replace_outside(distribution: Any, value: Any, other: Any) -> Any:
    """Replace the values outside of the support by others of the same shape."""
    return _where(is_inside(distribution, value), value, other)


def infinite_outside(inside: Any, energies: Any) -> Any:
    """Replace energies of values outside of the support by infinity."""
    xp = array_namespace(energies)
    return xp.where(inside, energies, xp.full_like(energies, math.inf))


def choose_inside(inside: Any, draws: Any, number: int) -> tuple[Any, Any]:
    """Choose draws inside of the support.

    They are independent where enough are inside, else each is chosen several times.

    Args:
        inside: Whether they are, shape ``(N, *batch)``.
        draws: Draws, shape ``(N, *batch, *event)``.
        number: At most N.

    Returns:
        Draws, shape ``(number, *batch, *event)``, and the share inside, shape ``(*batch,)``.
    """
    xp = array_namespace(draws)
    order = xp.argsort(xp.astype(~inside, xp.int8), axis=0, stable=True)
    counts = xp.sum(xp.astype(inside, order.dtype), axis=0)
    chosen = row_numbers(order[:number]) % xp.where(counts > 0, counts, xp.ones_like(counts))
    index = expand_right(xp.take_along_axis(order, chosen, axis=0), draws.ndim)
    return xp.take_along_axis(draws, index, axis=0), xp.mean(xp.astype(inside, draws.dtype), axis=0)


def ancestors_of(distribution: Any, draws: Any) -> Any:
    """Return the numbers of draws, shape ``(N, *batch)``, copies with those of their originals.

    Copies are those of :func:`choose_inside`: from some row on they repeat all before. None where
    a support is not narrower: there are none.
    """
    if not distribution._is_truncated:
        return None
    xp, num_dims = array_namespace(draws), draws.ndim - len(distribution.event_shape)
    same = xp.reshape(draws == draws[:1], (*draws.shape[:num_dims], -1))
    is_first = xp.all(same, axis=-1)
    periods = xp.cumulative_sum(xp.astype(is_first, xp.int32), axis=0)
    length = xp.sum(xp.astype(periods <= 1, xp.int32), axis=0)
    return row_numbers(periods) % length


def check_share(distribution: Any, share: Any, num_draws: int) -> None:
    """Raise if no draw of the base is inside of the support."""
    if not bool(array_namespace(share).all(share > 0)):
        raise ValueError(
            f"Expected some of {num_draws} draws of the base of {distribution} to be inside of its "
            "support, got none: method 'grid' needs none, or choose a base that covers the support."
        )


def log_of_share(share: Any, num_draws: int) -> tuple[Any, Any]:
    r"""Compute the log of a share of independent draws, and its standard error."""
    xp = array_namespace(share)
    some = xp.where(share > 0, share, xp.ones_like(share))
    return xp.log(share), xp.sqrt((1.0 - some) / (some * num_draws))


def _where(inside: Any, value: Any, other: Any) -> Any:
    return array_namespace(value).where(expand_right(inside, value.ndim), value, other)
