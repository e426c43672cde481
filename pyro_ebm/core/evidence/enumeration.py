"""Exact normalizing constants: sums over all values of an event of codes."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.columns import Columns, num_states
from pyro_ebm.core.distributions.context import own_shape
from pyro_ebm.core.evidence.log_normalizer import LogNormalizer
from pyro_ebm.core.numerics import logsumexp

# Values of an event at most, and energies that are evaluated at once.
_MOST, _CHUNK = 2**20, 2**14


def values_of(path: Any, arange: Callable[[int, int], Any]) -> Iterator[Any]:
    """Yield all values of an event of codes, in parts of shape ``(n, *batch, *event)``.

    The batch is that of base and context; ``arange`` is the host's.

    Raises:
        ValueError: If the event has numbers, or more than a million values.
    """
    distribution, target = path.distribution, path.target
    shape = (*own_shape(distribution), *distribution.event_shape)
    columns = _check_columns(target.columns)
    total, stride, strides = int(num_states(columns)), 1, []
    for column in reversed(columns):
        strides.append(stride)
        stride *= column.size
    size = max(1, _CHUNK // max(1, math.prod(own_shape(distribution))))
    for start in range(0, total, size):
        index = arange(start, min(start + size, total))
        xp, pairs = array_namespace(index), zip(columns, reversed(strides), strict=True)
        codes = xp.stack([(index // stride) % column.size for column, stride in pairs], axis=-1)
        ones = (1,) * (len(shape) - len(distribution.event_shape))
        codes = xp.reshape(codes, (-1, *ones, *distribution.event_shape))
        yield target.position(xp.broadcast_to(codes, (index.shape[0], *shape)))


def sum_over_values(log_density: Callable[[Any], Any], values: Iterator[Any]) -> LogNormalizer:
    """Return the log of the sum of a density over values; the bracket is the number itself."""
    parts = [logsumexp(log_density(part)) for part in values]
    xp = array_namespace(parts[0])
    total = logsumexp(xp.stack(parts))
    zero, infinite = xp.zeros_like(total), xp.full_like(total, math.inf)
    return LogNormalizer(total, total, total, zero, infinite, None, None)


def _check_columns(columns: Columns | None) -> Columns:
    if columns is None or num_states(columns) > _MOST:
        number = math.inf if columns is None else num_states(columns)
        got = "one with numbers" if number == math.inf else f"{number:.3g} values"
        raise ValueError(
            f"Expected a discrete support of at most {_MOST} values for method 'enumeration', got "
            f"{got}: use 'annealed'."
        )
    return columns
