"""Functions bound to the present values of the variables that they close over.

A function looks up the variables of its surroundings at every call: a loop's variable has its last
value by then.
"""

import functools
from collections.abc import Callable, Iterator
from types import CellType, FunctionType
from typing import Any

from torch import nn

from pyro_ebm.core.distributions.closures import assigned, is_empty, names_of

Function = Callable[..., Any]


def capture(function: Function) -> Function:
    """Copy a function with the values of its closure; other callables are unchanged.

    Functions in the closure, and inside of partials, are copied too. Global variables and
    attributes of objects stay references.
    """
    return _capture(function, {})


def _capture(value: Any, copies: dict[int, Any]) -> Any:
    if isinstance(value, functools.partial):
        inner = _capture(value.func, copies)
        return value if inner is value.func else type(value)(inner, *value.args, **value.keywords)
    # The compiler of torch recognizes the functions that it made.
    is_compiled = hasattr(value, "_torchdynamo_orig_callable")
    if not isinstance(value, FunctionType) or not value.__closure__ or is_compiled:
        return value
    if id(value) not in copies:
        _copy(value, value.__closure__, copies)
    return copies[id(value)]


def _copy(function: FunctionType, closure: tuple[CellType, ...], copies: dict[int, Any]) -> None:
    code = function.__code__
    cells = [
        cell if name in assigned(code) or is_empty(cell) else CellType()
        for name, cell in zip(code.co_freevars, closure, strict=True)
    ]
    copied = FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, tuple(cells)
    )
    copied.__kwdefaults__ = function.__kwdefaults__
    copied.__dict__.update(function.__dict__)
    # Before its cells are filled: a function may refer to itself.
    copies[id(function)] = copied
    for new, old in zip(cells, closure, strict=True):
        if new is not old:
            new.cell_contents = _capture(old.cell_contents, copies)


def modules_in(function: Any, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """Yield modules that a function refers to, by variable; not those behind ``seen`` ones."""
    if isinstance(function, functools.partial):
        function = function.func
    if not isinstance(function, FunctionType) or id(function) in seen:
        return
    seen.add(id(function))
    code, names = function.__code__, names_of(function.__code__, "LOAD_GLOBAL")
    variables = {name: function.__globals__.get(name) for name in names}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        variables[name] = None if is_empty(cell) else cell.cell_contents
    for name, value in variables.items():
        if isinstance(value, nn.Module):
            yield name, value
        else:
            yield from modules_in(value, seen)


def identities_of(function: Any, seen: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Identities of modules, their modes, and of code: of a function, and what it closes over."""
    function = getattr(function, "__func__", function)
    if isinstance(function, nn.Module):
        # Batch norm and dropout are sound in one mode alone.
        return (*seen, id(function), *(module.training for module in function.modules()))
    if isinstance(function, functools.partial):
        used = [function.func, *function.args, *function.keywords.values()]
    else:
        identity = id(getattr(function, "__code__", type(function)))
        if identity in seen:
            return seen
        seen, cells = (*seen, identity), getattr(function, "__closure__", None) or ()
        used = [cell.cell_contents for cell in cells if not is_empty(cell)]
    for it in filter(callable, used):
        seen = identities_of(it, seen)
    return seen
