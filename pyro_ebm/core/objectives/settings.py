"""Conversion of the fields of frozen dataclasses."""

from collections.abc import Callable
from typing import Any

Check = Callable[[str, Any], Any]


def convert_fields(settings: Any, **checks: Check) -> None:
    """Replace fields of a frozen dataclass, in its ``__post_init__``, by what their checks return.

    A check is a function of name and value, as in :mod:`pyro_ebm.core.checks`.
    """
    for name, check in checks.items():
        object.__setattr__(settings, name, check(name, getattr(settings, name)))


def optional(check: Check) -> Check:
    """Return a check that lets None pass."""
    return lambda name, value: None if value is None else check(name, value)


def each(check: Check) -> Check:
    """Return a check of one value, or of each in a list."""

    def check_each(name: str, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return check(name, value)
        if not value:
            raise ValueError(f"Expected `{name}` to be one or several, got none.")
        return tuple(check(name, part) for part in value)

    return check_each


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Return a tuple of one value, or of several."""
    return value if isinstance(value, tuple) else (value,)
