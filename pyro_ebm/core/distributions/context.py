"""Contexts of energies, and the rows that an energy is called on."""

from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from math import prod
from typing import Any, Protocol

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.distributions.checks import check_energies, check_value_shape
from pyro_ebm.core.distributions.joint import part_names
from pyro_ebm.core.numerics import with_first_counted

Shape = tuple[int, ...]


class HasContext(Protocol):
    """The part of an energy-based distribution that its energy is called with."""

    base: Any
    batch_shape: Any
    event_shape: Any
    _support: Any
    context: Any
    context_batch_ndims: int
    # From a function and contexts: the function of each of their arrays.
    _map_context: Callable[..., Any]


def number_of_batch_dims(batch_ndims: int | None, base: Any) -> int:
    """Return how many leading dimensions of a context are batch, by default those of the base."""
    if batch_ndims is None:
        return max(1, len(getattr(base, "batch_shape", ())))
    return check_positive_integer("context_batch_ndims", batch_ndims, minimum=0)


def context_shape(leaves: list[Any], batch_ndims: int, batch_shape: Shape = ()) -> Shape:
    """Return the batch shape of a context's arrays, broadcast with that of a base.

    Raises:
        ValueError: If an array has too few dimensions, or shapes do not broadcast.
    """
    shapes = [tuple(leaf.shape) for leaf in leaves]
    for shape in shapes:
        if len(shape) < batch_ndims:
            raise ValueError(
                f"Expected a `context` with {batch_ndims} batch dimensions in front "
                f"(`context_batch_ndims`), got shape {shape}."
            )
    own = [shape[:batch_ndims] for shape in shapes]
    hint = f" Its leading {batch_ndims} dimensions are batch; `context_batch_ndims` changes that."
    return tuple(_broadcast("context", leaves, batch_shape, own, hint))


def _broadcast(name: str, arrays: list[Any], batch_shape: Any, own: Any, hint: str = "") -> Any:
    try:
        return array_namespace(*arrays).broadcast_shapes(batch_shape, *own)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"Expected a `{name}` of the batch shape of the base, {tuple(batch_shape)}, got "
            f"{', '.join(map(str, own))}.{hint}"
        ) from error


def rows_of(distribution: HasContext, value: Any) -> tuple[tuple[Any, ...], Shape]:
    """Flatten values, and the context of each, to the arguments of an energy.

    Returns:
        ``(x,)`` or ``(x, c)``, with N rows each, and their batch shape, which has N elements. On a
        ``Joint`` base each part of it stands in place of ``x``.
    """
    shape, base = _shape_of_rows(distribution, value), distribution.base
    xp = array_namespace(value)

    def spread(x: Any, event_shape: Shape) -> Any:
        # Not -1: a batch of no values has no shape to infer it from.
        flat = (prod(shape), *event_shape)
        if x.shape == flat:  # Not even a view, which has a backward pass.
            return x
        return xp.reshape(xp.broadcast_to(x, (*shape, *event_shape)), flat)

    def spread_context(leaf: Any) -> Any:
        return spread(leaf, tuple(leaf.shape[distribution.context_batch_ndims :]))

    if part_names(base):
        parts = [(x, base.parts[name].event_shape) for name, x in base.split(value).items()]
    else:
        parts = [(value, distribution.event_shape)]
    rows = tuple(spread(part, tuple(event_shape)) for part, event_shape in parts)
    if distribution.context is None:
        return rows, shape
    return (*rows, distribution._map_context(spread_context, distribution.context)), shape


def own_shape(distribution: HasContext) -> Shape:
    """Return the batch shape of base, context and bounds, without that of plates."""
    if distribution.base is not None:  # It was expanded to the others.
        return tuple(distribution.base.batch_shape)
    shape: Shape = ()
    if distribution.context is not None:
        leaves: list[Any] = []
        distribution._map_context(leaves.append, distribution.context)
        shape = context_shape(leaves, distribution.context_batch_ndims)
    return bounds_shape(distribution._support, len(distribution.event_shape), shape)


def with_context(distribution: Any, context: Any) -> Any:
    """Copy a distribution with another context of the same shape."""
    new = copy(distribution)
    new.context = context
    return new


def with_counted_context(distribution: Any, is_counted: Any) -> Any:
    """Copy of a distribution whose context in rows that do not count is that of one that does."""
    if distribution.context is None:
        return distribution
    replace = partial(_counted, is_counted, distribution.context_batch_ndims)
    return with_context(distribution, distribution._map_context(replace, distribution.context))


def _counted(is_counted: Any, batch_ndims: int, leaf: Any) -> Any:
    """Replace rows of a context without a value that counts by a row with one."""
    xp, batch_shape = array_namespace(leaf), tuple(leaf.shape[:batch_ndims])
    counts = xp.broadcast_to(is_counted, xp.broadcast_shapes(is_counted.shape, batch_shape))
    if not prod(counts.shape):
        return leaf
    sizes = (1,) * (counts.ndim - batch_ndims) + batch_shape
    for dim in (dim for dim in range(counts.ndim) if sizes[dim] != counts.shape[dim]):
        counts = xp.any(counts, axis=dim, keepdims=True)
    return with_first_counted(leaf, xp.reshape(counts, batch_shape))


def over_batch(distribution: HasContext, value: Any) -> Any:
    """Repeat values for each element of the batch shape of a distribution."""
    batch_shape = check_value_shape(value.shape, distribution.event_shape)
    xp = array_namespace(value)
    shape = xp.broadcast_shapes(batch_shape, distribution.batch_shape)
    return xp.broadcast_to(value, (*shape, *distribution.event_shape))


def bounds_of(support: Any) -> Iterator[Any]:
    """Yield the numbers and arrays of a constraint."""
    for part in () if support is None else vars(support).values():
        if hasattr(part, "event_dim"):
            yield from bounds_of(part)
        else:
            yield part


def bounds_shape(support: Any, num_event_dims: int, batch_shape: Any) -> Any:
    """Return the batch shape of a constraint's bounds, broadcast with that of base and context."""
    bounds = [bound for bound in bounds_of(support) if hasattr(bound, "ndim")]
    own = [tuple(x.shape[: max(0, x.ndim - num_event_dims)]) for x in bounds]
    if not any(own):
        return batch_shape
    return _broadcast("support", bounds, batch_shape, own)


def _shape_of_rows(distribution: HasContext, value: Any) -> Shape:
    batch_shape = check_value_shape(value.shape, distribution.event_shape)
    if distribution.context is None and not part_names(distribution.base):
        return batch_shape
    own = own_shape(distribution)
    try:
        return tuple(array_namespace(value).broadcast_shapes(batch_shape, own))
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"Expected values of a batch shape that broadcasts with that of the context, {own}, "
            f"got {batch_shape}."
        ) from error


def evaluate(distribution: HasContext, function: Callable[..., Any], value: Any) -> Any:
    """Call a function as the energy of a distribution is called: once, on rows.

    Args:
        distribution: An energy-based distribution.
        function: Maps ``(N, *event_shape)``, or parts of a ``Joint``, and ``(N, *context_event)``
            where the distribution has a context, to ``(N,)``.
        value: Shape ``(*batch, *event_shape)``.

    Returns:
        Shape ``(*batch,)``, broadcast with the context's.

    Raises:
        ValueError: If the value has another event shape, or the function does not return one number
            for each value.
    """
    rows, batch_shape = rows_of(distribution, value)
    return _call(distribution, function, rows, batch_shape)


def evaluate_both(
    distribution: HasContext, function: Callable[..., Any], value: Any, negatives: Any
) -> tuple[Any, Any]:
    """Call a function as in :func:`evaluate`, once for values and negatives together."""
    (first, shape), (second, negative_shape) = (
        rows_of(distribution, x) for x in (value, negatives)
    )
    xp = array_namespace(value, negatives)
    both = zip(first, second, strict=True)
    rows = tuple(distribution._map_context(lambda *x: xp.concat(x), *pair) for pair in both)
    results = _call(distribution, function, rows, (prod(shape) + prod(negative_shape),))
    return (
        xp.reshape(results[: prod(shape)], shape),
        xp.reshape(results[prod(shape) :], negative_shape),
    )


def _call(
    distribution: HasContext, function: Any, rows: tuple[Any, ...], batch_shape: Shape
) -> Any:
    results = check_energies(function(*rows), rows[0], distribution)
    xp = array_namespace(results)
    # Autocast computes a network, and not a log Z, in half precision.
    results = xp.astype(results, xp.result_type(results.dtype, rows[0].dtype), copy=False)
    return results if results.shape == batch_shape else xp.reshape(results, batch_shape)
