"""Energies bound to their parameters, which can be held constant."""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, tree_util
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import jaxpr_as_fun
from numpyro.handlers import trace
from numpyro.primitives import _PYRO_STACK, Messenger

from pyro_ebm.core.distributions.checks import REMEDY, describe_dependence
from pyro_ebm.numpyro.distributions.closures import capture, innermost, release
from pyro_ebm.numpyro.distributions.latents import Latents

Function = Callable[..., Array]


def frozen_in_parameters(function: Function, *values: Any) -> tuple[Array, list[Array]]:
    """Evaluate a function, differentiable in ``values`` to every order and in nothing else.

    All other arrays that it uses, at any depth of closures, are held constant.

    Returns:
        The result, and the arrays that were held constant in it.
    """
    # A fresh function each time: JAX would answer an old one from its cache, old parameters
    # and all. (closure_convert does the same, but its cache keeps the parameters alive.)
    traced = jax.make_jaxpr(lambda *arguments: function(*arguments))(*values)
    constants = [lax.stop_gradient(c) if _is_inexact(c) else c for c in traced.consts]
    (result,) = jaxpr_as_fun(traced.replace(consts=constants))(*jax.tree.leaves(values))
    return result, [constant for constant in traced.consts if _is_inexact(constant)]


def held(tree: Any) -> Any:
    """Hold the arrays of a pytree constant; those of NumPy stay, or they could not be pickled."""
    return jax.tree.map(lambda x: lax.stop_gradient(x) if isinstance(x, Array) else x, tree)


class TrainedByObjective(Messenger):
    """Effect handler that marks code in which objectives train the energies, and does nothing."""


def warn_if_untrained(potential: Array, held: list[Array], latents: Latents) -> Array:
    """Warn of a latent behind a potential, and of gradients in what ``log_prob`` holds constant.

    Kernels without gradients need the former; a value computed from a latent they do not show.
    """
    if any(isinstance(handler, TrainedByObjective) for handler in _PYRO_STACK):
        return potential
    for name in latents.behind:
        warnings.warn(describe_dependence(name), stacklevel=3)
    return potential if latents.behind else _watch(potential, held, latents.before)


def noted_in_a_trace(draw: Array) -> Array | None:
    """Return what a site has drawn, if a handler records the sites that are met now."""
    return draw if any(isinstance(handler, trace) for handler in _PYRO_STACK) else None


def warn_if_drawn(value: Array, draw: Array | None) -> None:
    """Warn if a site's own draw is scored, as stock ELBOs score those of a guide."""
    trained = any(isinstance(handler, TrainedByObjective) for handler in _PYRO_STACK)
    if value is draw and not trained:
        warnings.warn(
            "The log-density of a value that an EnergyBased site has drawn itself leaves out its "
            "log-normalizer, and so does the loss of a stock ELBO whose guide has such a site, or "
            "lacks one that the model has. Use a normalized distribution in the guide.",
            stacklevel=3,
        )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _watch(potential: Array, held: list[Array], latents: tuple[str, ...]) -> Array:
    del held, latents
    return potential


@functools.partial(_watch.defjvp, symbolic_zeros=True)
def _watch_jvp(latents: tuple[str, ...], primals: Any, tangents: Any) -> Any:
    if not all(isinstance(tangent, SymbolicZero) for tangent in tangents[1]):
        warnings.warn(_gradient_in_constants(latents), stacklevel=2)
    return primals[0], tangents[0]


def _gradient_in_constants(latents: tuple[str, ...]) -> str:
    suspicion = (
        "Inference is silently wrong if the energy or base of an energy-based site depends on a "
        f"latent variable, here perhaps on one of {list(latents)}: the log-normalizer depends on "
        f"it too (the model is doubly intractable). {REMEDY} If it depends on none: "
    )
    return (suspicion if latents else "") + (
        "Nothing trains the parameters of an EnergyBased distribution: its log_prob holds those of "
        "the energy and its base constant, yet a gradient in them was asked for. To train them, "
        "use EnergyELBO(objective, elbo) as the loss, with an objective for this site; if they are "
        "meant to stay as they are, use jax.lax.stop_gradient. In a guide, use a normalized "
        "distribution."
    )


def trainable_arrays(energy: Any) -> dict[str, Array]:
    """Floating-point arrays of JAX in a module or partial, or in those that a function calls.

    Arrays of NumPy are constants, and so are arrays that a function uses by themselves.

    Returns:
        The arrays, by their paths.
    """
    function = energy.content if isinstance(energy, BoundFunction) else energy
    if inspect.isfunction(function):
        closure = inspect.getclosurevars(function)
        held = {**closure.globals, **closure.nonlocals}
        function = {name: value for name, value in held.items() if callable(value)}
    paths = tree_util.tree_leaves_with_path(function)
    return {
        tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in paths
        if is_trainable(leaf)
    }


def is_trainable(leaf: Any) -> bool:
    """Whether a leaf is a floating-point array of JAX."""
    return isinstance(leaf, Array) and _is_inexact(leaf)


@tree_util.register_pytree_node_class
class StaticPytree:
    """Any object as a pytree that passes through ``jit``, ``vmap`` and ``scan``.

    Its arrays are data; all else (structure, activations, plain functions) is static and hashed. A
    module therefore costs one compilation however often its parameters change.
    """

    def __init__(self, arrays: tuple[Any, ...], static: tuple[Any, tuple[Any, ...]]) -> None:
        self.arrays = arrays
        self.static = static

    @classmethod
    def pack(cls, content: Any) -> Self:
        """Separate the arrays of a pytree from its other leaves."""
        leaves, structure = jax.tree.flatten(content)
        arrays = tuple(leaf if _is_array(leaf) else None for leaf in leaves)
        others = tuple(None if _is_array(leaf) else leaf for leaf in leaves)
        return cls(arrays, (structure, others))

    @property
    def content(self) -> Any:
        """The packed object, with the present arrays."""
        structure, others = self.static
        leaves = zip(self.arrays, others, strict=True)
        return structure.unflatten(a if other is None else other for a, other in leaves)

    def tree_flatten(self) -> tuple[Any, Any]:
        return self.arrays, self.static

    @classmethod
    def tree_unflatten(cls, static: Any, arrays: Any) -> Self:
        return cls(tuple(arrays), static)


@tree_util.register_pytree_node_class
class BoundFunction(StaticPytree):
    """A function, as a pytree, with the values that it referred to when it was bound."""

    @property
    def content(self) -> Any:
        return release(super().content)

    def __call__(self, *args: Any) -> Any:
        return self.content(*args)

    def __repr__(self) -> str:
        function = innermost(self.content)
        return getattr(function, "__name__", type(function).__name__)

    def __reduce__(self) -> Any:
        return BoundFunction.pack, (super().content,)


def bind(energy: Any) -> Any:
    """Bind an energy to its parameters and constants, whatever they become later."""
    if isinstance(energy, BoundFunction | ScannedEnergy):
        return energy
    return BoundFunction.pack(capture(energy))


def as_context(leaf: Any) -> Array:
    """Convert a leaf of a context; raise if it is no array."""
    try:
        return jnp.asarray(leaf)
    except TypeError as error:
        raise TypeError(
            f"Expected `context` to be a pytree of arrays, got {type(leaf).__name__} in it."
        ) from error


@tree_util.register_pytree_node_class
class ScannedEnergy:
    """Energies of all steps of a ``scan``, each for its own slice of the values.

    Values, and their contexts, come flat, shape ``(sample * num_steps * size, *event)``, ``size``
    being the batch of one step.
    """

    def __init__(self, energies: BoundFunction, size: int) -> None:
        self.energies = energies
        self.size = size

    def __call__(self, *rows: Any) -> Array:
        num_steps = jax.tree.leaves(self.energies)[0].shape[0]

        def by_step(leaf: Array) -> Array:
            leaf = leaf.reshape((-1, num_steps, self.size, *leaf.shape[1:]))
            return jnp.moveaxis(leaf, 1, 0).reshape((num_steps, -1, *leaf.shape[3:]))

        energies = jax.vmap(BoundFunction.__call__)(self.energies, *jax.tree.map(by_step, rows))
        energies = energies.reshape((num_steps, -1, self.size))
        return jnp.moveaxis(energies, 0, 1).reshape(-1)

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.energies,), self.size

    @classmethod
    def tree_unflatten(cls, size: int, energies: Any) -> "ScannedEnergy":
        (energy,) = energies
        return cls(energy, size)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, Array | np.ndarray | np.generic)


def _is_inexact(leaf: Any) -> bool:
    return _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)
