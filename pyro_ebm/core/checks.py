"""Checks of arguments; errors read "Expected ..., got ..."."""

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


def check_finite(name: str, value: Any) -> float:
    """Return ``value`` as a float; raise unless it is a finite number."""
    if not _is_number(value):
        raise ValueError(f"Expected `{name}` to be a finite number, got {value!r}.")
    return float(value)


def check_positive(name: str, value: Any) -> float:
    """Return ``value`` as a float; raise unless it is a finite number above zero."""
    if not _is_number(value) or not value > 0:
        raise ValueError(f"Expected `{name}` to be a positive number, got {value!r}.")
    return float(value)


def check_nonnegative(name: str, value: Any) -> float:
    """Return ``value`` as a float; raise unless it is a finite number, zero or above."""
    if not _is_number(value) or not value >= 0:
        raise ValueError(f"Expected `{name}` to be a number of at least 0, got {value!r}.")
    return float(value)


def check_positive_integer(name: str, value: Any, *, minimum: int = 1) -> int:
    """Return ``value`` as an int; raise unless it is an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise ValueError(
            f"Expected `{name}` to be an integer of at least {minimum}, got {value!r}."
        )
    return int(value)


def check_probability(name: str, value: Any) -> float:
    """Return ``value`` as a float; raise unless it is a number strictly between 0 and 1."""
    if not _is_number(value) or not 0 < value < 1:
        raise ValueError(f"Expected `{name}` to be a number between 0 and 1, got {value!r}.")
    return float(value)


def check_instance(name: str, value: Any) -> None:
    """Raise if ``value`` is a class where one of its instances is wanted."""
    if isinstance(value, type):
        raise TypeError(
            f"Expected `{name}` to be an instance, got the class {value.__name__}: call it, as in "
            f"{value.__name__}(...)."
        )


def check_scalar(name: str, shape: Iterable[int]) -> None:
    """Raise unless an array has no dimensions."""
    if tuple(shape):
        raise ValueError(f"Expected `{name}` to be one number, got shape {tuple(shape)}.")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return ``value``; raise unless it is one of ``choices``."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"Expected `{name}` to be one of {choices}, got {value!r}.")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
