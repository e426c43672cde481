"""Probabilities of the codes of one column, given all others."""

from typing import Any

from array_api_compat import array_namespace, device

from pyro_ebm.core.columns import index_of
from pyro_ebm.core.distributions.checks import check_energy_based
from pyro_ebm.core.distributions.energy_based import AbstractEnergyBased
from pyro_ebm.core.numerics import expand_right, logsumexp


def code_probabilities(distribution: Any, value: Any, column: int | str) -> Any:
    r"""Evaluate the probabilities of the codes of a column, given the other columns, exactly.

    .. math::
        p(x_c = v \mid x_{-c}) = \frac{e^{-U(v, x_{-c})}}{\sum_{u} e^{-U(u, x_{-c})}}

    With labels in the column this is a classifier. :math:`\log Z` cancels, and one call of the
    energy, on as many values as there are codes, gives all.

    Args:
        distribution: An energy-based distribution whose events have columns of codes.
        value: Values, shape ``(*sample, *batch, *event)``; those in the column are ignored.
        column: Number of the column in the flattened event, from the end if negative; or its name.

    Returns:
        Shape ``(*sample, *batch, size)``, with gradients in the parameters.

    Raises:
        TypeError: If the distribution is none of ours.
        ValueError: If there is no such column, or it is numeric.
    """
    check_energy_based(distribution, AbstractEnergyBased)
    target = distribution._target_class.of_any(distribution)
    column, size = _column(target.columns, column)
    value, event_shape = target.position(value), tuple(distribution.event_shape)
    xp, own = array_namespace(value), (*distribution.batch_shape, *event_shape)
    value = xp.broadcast_to(value, xp.broadcast_shapes(tuple(value.shape), own))
    batch_shape = value.shape[: value.ndim - len(event_shape)]
    flat = xp.reshape(value, (*batch_shape, len(target.columns)))
    here = xp.arange(flat.shape[-1], device=device(flat)) == column
    codes = xp.arange(size, dtype=flat.dtype, device=device(flat))
    values = xp.where(here, expand_right(codes, flat.ndim + 1), flat)
    log_p = -target.potential(xp.reshape(values, (size, *batch_shape, *event_shape)))
    return xp.exp(xp.moveaxis(log_p - logsumexp(log_p), 0, -1))


def _column(columns: Any, column: Any) -> tuple[int, int]:
    """Return the number and the size of a column of codes."""
    if columns is None:
        raise ValueError("Expected events with columns of codes, got a continuous support.")
    number = index_of(columns, column)
    if columns[number].is_numeric:
        raise ValueError(f"Expected `column` to be a column of codes, got {column!r}, numeric.")
    return number, columns[number].size
