"""Calling an energy: one batch dimension, and its parameters held constant where they must be."""

import functools
import inspect
from collections.abc import Callable
from math import prod
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, tree_util
from jax.extend.core import jaxpr_as_fun

from pyro_ebm.core.checks import check_energy_shape

__all__ = ["Packed", "evaluate_energy", "score_only", "trainable_arrays"]

Function = Callable[..., Array]


def evaluate_energy(energy: Function, value: Array, event_shape: tuple[int, ...]) -> Array:
    """Energies of any number of values, in one call with exactly one batch dimension.

    Args:
        energy: Maps ``(N, *event_shape)`` to ``(N,)``.
        value: Shape ``(*batch, *event_shape)``.
        event_shape: Shape of one value.

    Returns:
        Shape ``(*batch,)``.

    Raises:
        ValueError: If the value has another event shape, or the energy gives anything but one
            number for each value.
    """
    batch_ndim = value.ndim - len(event_shape)
    if batch_ndim < 0 or value.shape[batch_ndim:] != tuple(event_shape):
        raise ValueError(
            f"Expected a value of event shape {tuple(event_shape)}, "
            f"got a value of shape {tuple(value.shape)}."
        )
    batch_shape = value.shape[:batch_ndim]
    # Not -1: a batch of no values has no shape to infer it from.
    energies = energy(value.reshape((prod(batch_shape), *event_shape)))
    check_energy_shape(energies, prod(batch_shape))
    return energies.reshape(batch_shape)


def score_only(function: Function, value: Array) -> tuple[Array, list[Array]]:
    """``function(value)``, differentiable in the value to every order and in nothing else.

    Args:
        function: Any function of arrays. Whatever it uses beside its argument, at whatever depth
            of closures, is held constant.
        value: Where it is evaluated.

    Returns:
        The result, and what was held constant in it.
    """
    # A fresh function each time: JAX would answer an old one from its cache, old parameters
    # and all. (closure_convert does the same, but its cache keeps the parameters alive.)
    traced = jax.make_jaxpr(lambda argument: function(argument))(value)
    constants = [_hold(constant) for constant in traced.consts]
    (result,) = jaxpr_as_fun(traced.replace(consts=constants))(value)
    return result, [constant for constant in traced.consts if _is_inexact(constant)]


def _hold(constant: Any) -> Any:
    return lax.stop_gradient(constant) if _is_inexact(constant) else constant


def trainable_arrays(energy: Any) -> dict[str, Array]:
    """Floating-point arrays of JAX in a module or partial, or in those that a function calls.

    Arrays of NumPy are constants, and so are arrays that a function uses by themselves.

    Returns:
        The arrays, by their paths.
    """
    function = energy.content if isinstance(energy, _Energy) else energy
    if inspect.isfunction(function):
        closure = inspect.getclosurevars(function)
        held = {**closure.globals, **closure.nonlocals}
        function = {name: value for name, value in held.items() if callable(value)}
    paths = tree_util.tree_leaves_with_path(function)
    return {
        tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in paths
        if isinstance(leaf, Array) and _is_inexact(leaf)
    }


@tree_util.register_pytree_node_class
class Packed:
    """Anything, in a form that passes through ``jit``, ``vmap`` and ``scan``.

    Its arrays are data; all else (structure, activations, plain functions) is hashed. A module or
    a ``jax.tree_util.Partial`` of a top-level function therefore costs one compilation however
    often its parameters change; a fresh closure costs one each time.
    """

    def __init__(self, arrays: tuple[Any, ...], static: tuple[Any, tuple[Any, ...]]) -> None:
        self.arrays = arrays
        self.static = static

    @classmethod
    def pack(cls, content: Any) -> Self:
        """Take a pytree of arrays and other things apart."""
        leaves, structure = jax.tree.flatten(content)
        arrays = tuple(leaf if _is_array(leaf) else None for leaf in leaves)
        others = tuple(None if _is_array(leaf) else leaf for leaf in leaves)
        return cls(arrays, (structure, others))

    @property
    def content(self) -> Any:
        """What was packed, with the arrays that are there now."""
        structure, others = self.static
        leaves = zip(self.arrays, others, strict=True)
        return structure.unflatten(a if other is None else other for a, other in leaves)

    def tree_flatten(self) -> tuple[Any, Any]:
        """What JAX may change, and what it may not."""
        return self.arrays, self.static

    @classmethod
    def tree_unflatten(cls, static: Any, arrays: Any) -> Self:
        """The inverse of :meth:`tree_flatten`."""
        return cls(tuple(arrays), static)


@tree_util.register_pytree_node_class
class _Energy(Packed):
    """A packed function."""

    def __call__(self, *args: Array) -> Array:
        return self.content(*args)

    def __repr__(self) -> str:
        function = self.content
        if isinstance(function, functools.partial):
            function = function.func
        return getattr(function, "__name__", type(function).__name__)

    def __reduce__(self) -> Any:
        return _as_pytree, (self.content,)


def _as_pytree(energy: Any) -> Any:
    if isinstance(energy, _Energy | _ScannedEnergy):
        return energy
    if isinstance(energy, functools.partial) and not isinstance(energy, tree_util.Partial):
        energy = tree_util.Partial(energy.func, *energy.args, **energy.keywords)
    return _Energy.pack(energy)


@tree_util.register_pytree_node_class
class _ScannedEnergy:
    """The energies of all steps of a ``scan``, each for its own slice of the values.

    Values come flat, shape ``(sample * num_steps * size, *event)``, ``size`` being the batch of
    one step.
    """

    def __init__(self, energies: _Energy, size: int) -> None:
        self.energies = energies
        self.size = size

    def __call__(self, value: Array) -> Array:
        num_steps = jax.tree.leaves(self.energies)[0].shape[0]
        rows = value.reshape((-1, num_steps, self.size, *value.shape[1:]))
        num_samples = rows.shape[0]
        by_step = jnp.moveaxis(rows, 1, 0).reshape((num_steps, -1, *value.shape[1:]))
        energies = jax.vmap(_Energy.__call__)(self.energies, by_step)
        energies = energies.reshape((num_steps, num_samples, self.size))
        return jnp.moveaxis(energies, 0, 1).reshape(value.shape[0])

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.energies,), self.size

    @classmethod
    def tree_unflatten(cls, size: int, energies: Any) -> "_ScannedEnergy":
        (energy,) = energies
        return cls(energy, size)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, Array | np.ndarray | np.generic)


def _is_inexact(leaf: Any) -> bool:
    return _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)
