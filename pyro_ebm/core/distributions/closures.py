"""Inspection of functions and of the variables that they close over."""

import dis
import functools
from types import CellType, CodeType


@functools.cache
def names_of(code: CodeType, operation: str) -> frozenset[str]:
    """Return the names that an operation of a function's code is used with."""
    found = (i.argval for i in dis.get_instructions(code) if i.opname == operation)
    return frozenset(found)


def assigned(code: CodeType) -> frozenset[str]:
    """Return the outer variables that a function assigns to: it keeps sharing them."""
    return names_of(code, "STORE_DEREF")


def is_empty(cell: CellType) -> bool:
    """Whether a variable has no value yet."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False
