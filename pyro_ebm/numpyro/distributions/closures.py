"""Functions as pytrees of what they close over.

A function refers to the variables of its surroundings, and looks them up at every call: a loop's
variable has its last value by then, and an array of a ``scan`` is gone. Captured, they are data.
"""

import functools
from collections.abc import Callable
from copy import deepcopy
from importlib import import_module
from operator import attrgetter
from pickle import PicklingError
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import jax
from jax import Array, tree_util

from pyro_ebm.core.distributions.closures import assigned, is_empty, names_of

Function = Callable[..., Any]

_Jitted = type(jax.jit(lambda: None))


def capture(value: Any) -> Any:
    """Make a pytree of a function or a partial, with the values that they refer to at present.

    Its arrays are data; all else is compared by type and value where it can be hashed, else by
    identity. Functions of other Python modules, and attributes of objects that are no pytrees,
    stay references.
    """
    return _capture(value, getattr(innermost(value), "__globals__", None), frozenset())


def release(value: Any) -> Any:
    """Make functions of what :func:`capture` made of them."""

    def one(leaf: Any) -> Any:
        return leaf.released() if isinstance(leaf, _CAPTURED) else leaf

    return jax.tree.map(one, value, is_leaf=lambda leaf: isinstance(leaf, _CAPTURED))


class Static:
    """A value that is no data, with an equality that tells 1, 1.0 and True apart."""

    def __init__(self, value: Any) -> None:
        self.value = value
        try:
            self.key: Any = hash(value)
        except TypeError:
            self.key = None

    def __hash__(self) -> int:
        return hash((type(self.value), id(self.value) if self.key is None else self.key))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Static) or type(self.value) is not type(other.value):
            return False
        return self.value is other.value or (self.key is not None and self.value == other.value)

    def released(self) -> Any:
        return self.value

    def __deepcopy__(self, memo: dict[int, Any]) -> "Static":
        return self

    def __reduce__(self) -> Any:
        return Static, (self.value,)


class _Frame(NamedTuple):
    """Static parts of a function: code, names, namespace, and cells that stay shared."""

    code: CodeType
    name: str
    label: str
    namespace: Static
    shared: tuple[Static, ...]


@tree_util.register_pytree_node_class
class Closure:
    """A Python function with captured cells, globals and defaults."""

    def __init__(self, values: tuple[Any, ...], frame: _Frame) -> None:
        self.values = values
        self.frame = frame

    @classmethod
    def of(cls, function: FunctionType, namespace: Any, seen: frozenset[int]) -> "Closure":
        seen |= {id(function)}
        code, cells, shared = function.__code__, [], []
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            is_shared = name in assigned(code) or is_empty(cell)
            cells.append(None if is_shared else _capture(cell.cell_contents, namespace, seen))
            shared.append(Static(cell if is_shared else None))
        variables = {} if function.__globals__ is not namespace else _variables(code, namespace)
        found = {name: _capture(value, namespace, seen) for name, value in variables.items()}
        defaults = _capture((function.__defaults__, function.__kwdefaults__), namespace, seen)
        inner = innermost(function)
        label = getattr(inner, "__name__", type(inner).__name__)
        frame = _Frame(
            code, function.__qualname__, label, Static(function.__globals__), tuple(shared)
        )
        return cls((tuple(cells), found, defaults), frame)

    def released(self) -> FunctionType:
        code, name, label, namespace, shared = self.frame
        cells, found, (defaults, keywords) = release(self.values)
        function = FunctionType(
            code,
            {**namespace.value, **found} if found else namespace.value,
            label,
            defaults,
            tuple(s.value or CellType(cell) for s, cell in zip(shared, cells, strict=True)),
        )
        function.__kwdefaults__, function.__qualname__ = keywords, name
        return function

    def tree_flatten(self) -> tuple[Any, Any]:
        return self.values, self.frame

    @classmethod
    def tree_unflatten(cls, frame: Any, values: Any) -> "Closure":
        return cls(tuple(values), frame)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Closure":
        return Closure(deepcopy(self.values, memo), self.frame)

    def __reduce__(self) -> Any:
        if "<" in self.frame.name:
            raise PicklingError(
                f"Expected an energy of a module's top level, got {self.frame.name}."
            )
        return _of_module, (self.frame.namespace.value["__name__"], self.frame.name)


@tree_util.register_pytree_node_class
class _Partial:
    """A partial; that of JAX would compare a captured function by identity."""

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.parts = parts

    def released(self) -> Any:
        function, args, keywords = release(self.parts)
        return tree_util.Partial(function, *args, **keywords)

    def tree_flatten(self) -> tuple[Any, Any]:
        return self.parts, None

    @classmethod
    def tree_unflatten(cls, _: Any, parts: Any) -> "_Partial":
        return cls(tuple(parts))


_CAPTURED = (Closure, _Partial, Static)


def _capture(value: Any, namespace: Any, seen: frozenset[int]) -> Any:
    if isinstance(value, Array):
        return value
    if isinstance(value, FunctionType):
        is_known = value.__globals__ is not namespace and not value.__closure__
        return (
            Static(value) if is_known or id(value) in seen else Closure.of(value, namespace, seen)
        )
    if isinstance(value, _Jitted):
        inner = _capture(value.__wrapped__, namespace, seen)
        return Static(value) if isinstance(inner, Static) else inner
    if isinstance(value, MethodType):
        return _Partial((Static(value.__func__), (_capture(value.__self__, namespace, seen),), {}))
    if isinstance(value, functools.partial):
        args = tuple(_capture(part, namespace, seen) for part in value.args)
        keywords = {name: _capture(part, namespace, seen) for name, part in value.keywords.items()}
        return _Partial((_capture(value.func, namespace, seen), args, keywords))
    leaves, structure = jax.tree.flatten(value)
    if value is None:
        return value
    # A list that a function appends to stays the list that it is.
    if not (_has_arrays(leaves) and _can_be_rebuilt(structure, leaves)):
        return Static(value)
    captured = [_capture(leaf, namespace, seen) if callable(leaf) else leaf for leaf in leaves]
    are_functions = [isinstance(leaf, Closure | _Partial) for leaf in captured]
    return structure.unflatten(captured) if any(are_functions) else value


def _can_be_rebuilt(structure: Any, leaves: list[Any]) -> bool:
    try:
        structure.unflatten(leaves)
    except AttributeError:  # A bijection of flowjax inside of a transform of NumPyro.
        return False
    return True


def innermost(value: Any) -> Any:
    """Unwrap partials, and wrappers such as ``vmap``, down to a function."""
    while isinstance(value, functools.partial) or hasattr(value, "__wrapped__"):
        value = value.func if isinstance(value, functools.partial) else value.__wrapped__
        value = getattr(value, "fun", value)  # Inside of `jax.tree_util.Partial`.
    return value


def _variables(code: CodeType, namespace: dict[str, Any]) -> dict[str, Any]:
    """Globals that a function loads, without modules, classes, and what was imported."""
    loaded = {name: namespace[name] for name in _globals(code) if name in namespace}
    return {name: value for name, value in loaded.items() if _is_variable(value, namespace)}


def _is_variable(value: Any, namespace: dict[str, Any]) -> bool:
    if isinstance(value, FunctionType):
        return value.__globals__ is namespace
    if isinstance(value, ModuleType | type):
        return False
    return not callable(value) or _has_arrays(value)


def _has_arrays(value: Any) -> bool:
    return any(isinstance(leaf, Array) for leaf in jax.tree.leaves(value))


def _globals(code: CodeType) -> set[str]:
    """Names of globals that a function and those inside of it load."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return {*names_of(code, "LOAD_GLOBAL")}.union(*map(_globals, inner))


def _of_module(module: str, name: str) -> Closure:
    return capture(attrgetter(name)(import_module(module)))
