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
