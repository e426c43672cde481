"""Products of column marginals: arguments, and their fit to data."""

import math
from collections.abc import Iterable
from typing import Any, ClassVar, Self

import numpy as np
from array_api_compat import array_namespace, device

from pyro_ebm._arrays import to_numpy
from pyro_ebm.core.checks import check_nonnegative
from pyro_ebm.core.columns import (
    Columns,
    are_values,
    check_columns,
    describe_columns,
    index_of,
    misfit,
)
from pyro_ebm.core.numerics import logsumexp


class AbstractColumnMarginals:
    r"""Independent columns: a normal distribution for each number, probabilities for each code.

    .. math:: p_0(x) = \prod_{c \text{ numeric}} \mathcal N(x_c; \mu_c, \sigma_c^2)
        \prod_{c \text{ of codes}} \pi_{c, x_c}

    A value is one vector, with codes as whole numbers beside the real ones. It is the base of
    energies on tables; those of bits or of codes of one size have the host's own bases,
    ``Bernoulli(...).to_event(1)`` and ``Categorical(...).to_event(1)``.

    Args:
        columns: A ``Column`` for each coordinate.
        loc: Means of the numeric columns, shape ``(num_columns,)``; those of others are not used.
        scale: Their standard deviations.
        log_probs: Log-probabilities of codes, shape ``(num_columns, S)`` with the largest size S.
            Those of a column's codes are normalized, so that they can be learned; beyond them and
            for numbers they are not used.

    Raises:
        TypeError: If ``columns`` are none.
        ValueError: If a shape is another, or none of the columns has codes.
    """

    # The host's class of independent normal distributions.
    _normal: ClassVar[Any]

    columns: Columns
    loc: Any
    scale: Any
    log_probs: Any

    def __init__(self, columns: Any, loc: Any, scale: Any, log_probs: Any) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"ColumnMarginals({describe_columns(self.columns)})"

    @classmethod
    def fit(cls, columns: Iterable[Any], data: Any, *, smoothing: float = 1.0) -> Self:
        """Fit means and standard deviations of numbers, and frequencies of codes.

        Args:
            columns: A ``Column`` for each coordinate.
            data: Shape ``(N, num_columns)``.
            smoothing: Count added to each code, so that none has probability zero.

        Raises:
            ValueError: If the data are not values of these columns, a numeric column is constant,
                or the smoothing is negative.
        """
        columns, data = check_columns(columns), np.asarray(to_numpy(data), dtype=float)
        check_nonnegative("smoothing", smoothing)
        _check_data(columns, data)
        is_numeric = np.array([column.is_numeric for column in columns])
        loc, scale = (np.where(is_numeric, x, y) for x, y in ((data.mean(0), 0), (data.std(0), 1)))
        for c in np.flatnonzero(scale == 0):
            raise ValueError(f"Expected column {columns[c].name or c} to vary, got {data[0, c]}.")
        counts = np.zeros((len(columns), max(column.size for column in columns)))
        for c, column in enumerate(columns):
            codes = data[:, c].astype(int) if column.size else []
            counts[c, : column.size] = smoothing + np.bincount(codes, minlength=column.size)
        total = np.maximum(counts.sum(-1, keepdims=True), 1.0)
        with np.errstate(divide="ignore"):
            return cls(columns, loc, scale, np.log(counts / total))

    def marginal(self, columns: Iterable[int | str]) -> Any:
        """Return the distribution of some columns, in this order; of numbers alone, a ``Normal``.

        The base of an energy that is given the other columns as its ``context``.

        Args:
            columns: Numbers or names of columns.

        Raises:
            ValueError: If one is unknown or comes twice, or there is none.
        """
        index = [index_of(self.columns, column) for column in columns]
        if not index or len(set(index)) < len(index):
            raise ValueError(f"Expected different columns, at least one, got {columns}.")
        chosen = [self.columns[number] for number in index]
        size, rows = max(column.size for column in chosen), np.array(index)
        loc, scale, log_probs = self.loc[rows], self.scale[rows], self.log_probs[rows, :size]
        if size:
            return type(self)(chosen, loc, scale, log_probs).expand(self.batch_shape)
        return self._normal(loc, scale).to_event(1).expand(self.batch_shape)


def check_parameters(columns: Any, *shapes: tuple[int, ...]) -> Columns:
    """Return columns; raise unless parameters have shapes that fit them."""
    columns = check_columns(columns)
    largest, number = max(column.size for column in columns), len(columns)
    if not largest:
        raise ValueError(
            "Expected at least one column of codes, got numbers alone: the base is "
            "Normal(loc, scale).to_event(1)."
        )
    expected = (number,), (number,), (number, largest)
    for name, shape, wanted in zip(("loc", "scale", "log_probs"), shapes, expected, strict=True):
        if tuple(shape) != wanted:
            raise ValueError(f"Expected `{name}` of shape {wanted}, got {tuple(shape)}.")
    return columns


def normalized(columns: Columns, log_probs: Any) -> Any:
    """Normalize the log-probabilities of each column's codes."""
    xp = array_namespace(log_probs)
    sizes = xp.asarray([[column.size] for column in columns], device=device(log_probs))
    codes = xp.arange(log_probs.shape[-1], device=device(log_probs))
    lowest = xp.full_like(log_probs, -math.inf)
    # Numbers have some, which are finite: gradients of what is not used are 0.
    logits = xp.where(sizes == 0, xp.zeros_like(log_probs), lowest)
    logits = xp.where(codes < sizes, log_probs, logits)
    return logits - logsumexp(logits, axis=-1)[:, None]


def _check_data(columns: Columns, data: np.ndarray) -> None:
    if data.ndim != 2 or data.shape[1] != len(columns) or not len(data):  # noqa: PLR2004
        raise ValueError(f"Expected `data` of shape (N, {len(columns)}), got {data.shape}.")
    wrong = ~are_values(columns, data) | ~np.isfinite(data).all(-1)
    if wrong.any():
        got = misfit(columns, data, wrong)
        raise ValueError(f"Expected `data` of {describe_columns(columns)}, got {got}.")
