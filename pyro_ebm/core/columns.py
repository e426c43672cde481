"""Columns of an event: what its coordinates are, numbers or categories."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from array_api_compat import array_namespace, device

from pyro_ebm.core.checks import check_choice, check_instance, check_positive_integer

_FEWEST = {"nominal": 2, "ordinal": 2, "cyclic": 3}


@dataclass(frozen=True)
class Column:
    """One coordinate of an event: a number, or one of ``size`` codes from 0 to ``size - 1``.

    *Nominal* codes have no order (labels, bits), *ordinal* ones lie on a line (ratings, counts),
    *cyclic* ones on a circle (hours, months, angles).

    Args:
        kind: ``"numeric"``, ``"nominal"``, ``"ordinal"`` or ``"cyclic"``.
        size: Number of codes, at least 2, and 3 on a circle; none for numbers.
        name: Name of the column, in ArviZ, in plots, and for functions that take a column; columns
            are equal whatever their names.

    Raises:
        ValueError: If the kind is unknown, or does not have such a size.

    Example:
        >>> Column.cyclic(12, "month")
        Column(kind='cyclic', size=12, name='month')
    """

    kind: str
    size: int = 0
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, ("numeric", *_FEWEST))
        if self.is_numeric:
            if self.size:
                raise ValueError(f"Expected a numeric column without `size`, got {self.size!r}.")
            return
        check_positive_integer("size", self.size, minimum=_FEWEST[self.kind])

    @property
    def is_numeric(self) -> bool:
        """Presence of real numbers in place of codes."""
        return self.kind == "numeric"

    @classmethod
    def numeric(cls, name: str = "") -> Self:
        """Make a column of real numbers."""
        return cls("numeric", name=name)

    @classmethod
    def nominal(cls, size: int, name: str = "") -> Self:
        """Make a column of codes without an order."""
        return cls("nominal", size, name)

    @classmethod
    def ordinal(cls, size: int, name: str = "") -> Self:
        """Make a column of codes on a line."""
        return cls("ordinal", size, name)

    @classmethod
    def cyclic(cls, size: int, name: str = "") -> Self:
        """Make a column of codes on a circle."""
        return cls("cyclic", size, name)


Columns = tuple[Column, ...]


def check_columns(columns: Iterable[Any]) -> Columns:
    """Return columns as a tuple; raise unless there is one, and each is a :class:`Column`."""
    columns = tuple(columns)
    for column in columns:
        check_instance("columns", column)
        if not isinstance(column, Column):
            raise TypeError(f"Expected `columns` of Column, got {column!r}.")
    if not columns:
        raise ValueError("Expected at least one column, got none.")
    return columns


def codes_of(size: int, event_shape: tuple[int, ...]) -> Columns:
    """Return a nominal column for each coordinate of an event of codes."""
    if size < _FEWEST["nominal"]:
        raise ValueError(
            f"Expected a base with two values or more, got one with codes up to {size - 1}."
        )
    return (Column.nominal(size),) * math.prod(event_shape)


def codes_up_to(largest: Any, event_shape: tuple[int, ...]) -> Columns:
    """Return a nominal column for each coordinate, of codes up to a number, or to equal ones."""
    if getattr(largest, "ndim", 0):
        xp = array_namespace(largest)
        if bool(xp.any(largest != xp.max(largest))):
            raise ValueError(
                f"Expected a support with as many codes in all columns, got codes up to {largest}: "
                "use ColumnMarginals."
            )
        largest = xp.max(largest)
    return codes_of(int(largest) + 1, event_shape)


def names_of(columns: Columns, prefix: str) -> list[str]:
    """Return a name for each column; those without have a prefix and their number."""
    names = [column.name or f"{prefix}_{c}" for c, column in enumerate(columns)]
    if len(set(names)) < len(names):
        raise ValueError(f"Expected columns of different names, got {names}.")
    return names


def describe_columns(columns: Columns) -> str:
    """Describe columns in a line, the first eight of them."""
    sizes = [f"({column.size})" if column.size else "" for column in columns]
    words = [f"{it.name or c}: {it.kind}{sizes[c]}" for c, it in enumerate(columns)]
    return ", ".join(words[:8] + ["..."] * (len(words) > 8))  # noqa: PLR2004


def misfit(columns: Columns, table: Any, wrong: Any) -> str:
    """Describe the first number that does not fit its column, in the first row that is wrong."""
    xp = array_namespace(table)
    row = int(xp.argmax(xp.astype(xp.reshape(wrong, (-1,)), xp.int32)))
    for c, column in enumerate(columns):
        x = float(xp.reshape(table, (-1, len(columns)))[row, c])
        if not math.isfinite(x) or (column.size and x not in range(column.size)):
            return f"row {row}: {x:g} in column {column.name or c}"
    return f"row {row}"


def index_of(columns: Columns, column: Any) -> int:
    """Return the number of a column, given by its number, from the end if negative, or its name."""
    if isinstance(column, str):
        names = [own.name for own in columns]
        if not column or names.count(column) != 1:
            raise ValueError(f"Expected the name of one column out of {names}, got {column!r}.")
        return names.index(column)
    number = check_positive_integer("column", column, minimum=-len(columns))
    if number >= len(columns):
        got = f"{number} of {len(columns)} columns"
        raise ValueError(f"Expected `column` to be the number of a column, got {got}.")
    return number % len(columns)


def num_states(columns: Columns) -> float:
    """Count the values of an event: infinitely many with a numeric column."""
    return math.prod(column.size or math.inf for column in columns)


def are_values(columns: Columns, value: Any) -> Any:
    """Return whether each value, shape ``(*batch, num_columns)``, fits its columns."""
    xp = array_namespace(value)
    if value.shape[-1] != len(columns):
        return xp.zeros(value.shape[:-1], dtype=xp.bool, device=device(value))
    # A number that differs from itself is NaN.
    return xp.all(have_codes(columns, value) & (value == value), axis=-1)  # noqa: PLR0124


def have_codes(columns: Columns, value: Any) -> Any:
    """Return whether elements, ``(*batch, num_columns)``, are codes where columns have some."""
    size = array_namespace(value).asarray([column.size for column in columns], device=device(value))
    return (size == 0) | ((value >= 0) & (value < size) & (value % 1 == 0))
