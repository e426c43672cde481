"""States of runs as trees of arrays, numbers and words, with names for the leaves."""

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import fields as fields_of
from dataclasses import is_dataclass, replace
from functools import partial
from typing import Any, NamedTuple

Leaves = dict[str, Any]


class Fixed(str):
    """Text that a file and a run must have in common."""


class Lazy(NamedTuple):
    """Leaves that a run, or a file, may not have yet: all of them or none.

    Attributes:
        present: Those of the run, by a name without dots.
        like: An array; where the run has no leaves, those of a file are scalars or of its shape.
    """

    present: Mapping[str, Any]
    like: Any

    def named(self, name: str) -> Leaves:
        """Leaves of the run by their full names."""
        return {f"{name}.{key}": leaf for key, leaf in self.present.items()}


class Node(NamedTuple):
    """An inner node of a state.

    Attributes:
        children: By the ends of their names.
        join: Makes the node of new children, in the same order.
    """

    children: Mapping[str, Any]
    join: Callable[[list[Any]], Any]


Split = Callable[[Any], Node | None]


def leaves(node: Any, split: Split, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a state by name; ``split`` gives None for a leaf."""
    inner = split(node)
    if inner is None:
        yield name, node
        return
    for step, child in inner.children.items():
        yield from leaves(child, split, name + step)


def join(node: Any, split: Split, name: str, new: Mapping[str, Any]) -> Any:
    """Make a state of the same structure with other leaves."""
    inner = split(node)
    if inner is None:
        return new[name]
    return inner.join([join(child, split, name + s, new) for s, child in inner.children.items()])


def expanded(state: Mapping[str, Any]) -> Leaves:
    """Return leaves with those that lazy ones have."""
    found: Leaves = {}
    for name, leaf in state.items():
        found |= leaf.named(name) if isinstance(leaf, Lazy) else {name: leaf}
    return found


def container(node: Any) -> Node | None:
    """Split a dictionary, a list, a tuple or a dataclass; None for all else."""
    if isinstance(node, Lazy):
        return None
    if isinstance(node, Mapping):
        return Node({f"[{key!r}]": value for key, value in node.items()}, partial(_with, node))
    if isinstance(node, list | tuple):
        fields = getattr(node, "_fields", None)
        steps = [f".{name}" for name in fields] if fields else [f"[{i}]" for i in range(len(node))]
        make = type(node)._make if fields else type(node)
        return Node(dict(zip(steps, node, strict=True)), make)
    if is_dataclass(node) and not isinstance(node, type):
        names = [field.name for field in fields_of(node) if field.init]
        children = {f".{name}": getattr(node, name) for name in names}
        return Node(children, lambda new: replace(node, **dict(zip(names, new, strict=True))))
    return None


def is_array(leaf: Any) -> bool:
    """Whether a leaf has a shape and a type of numbers."""
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _with(mapping: Mapping[Any, Any], values: list[Any]) -> Any:
    # Counters and the like have constructors of their own.
    changed: Any = copy(mapping)
    for key, value in zip(mapping, values, strict=True):
        changed[key] = value
    return changed
