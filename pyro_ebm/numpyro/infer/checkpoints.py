"""Checkpoints of training and of chains with NumPyro."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array, random, tree_util
from safetensors.numpy import save

from pyro_ebm import __version__, checkpoints
from pyro_ebm.checkpoints import FilePath, Fixed, Node, container, is_array

_ADVICE = "Is it of another model?"


def save_checkpoint(path: FilePath, state: Any) -> None:
    """Save a pytree in one safetensors file.

    An ``SVIState`` has all that a run needs to go on to the last bit: parameters, the optimizer's
    state, persistent chains and stored positions, random keys. The file is replaced at once: if
    the process is killed, the old one is there.

    Args:
        path: Name of the file. Processes that train together need one each, such as
            ``f"run_{jax.process_index()}.safetensors"``, as far as their states differ.
        state: A pytree of arrays, typed random keys, numbers, words and samplers: an ``SVIState``,
            the ``state`` of :class:`~pyro_ebm.diagnostics.Chains` or of ``MCMC``.

    Raises:
        TypeError: If ``state`` has something else, a function for example, or numbers that the
            format does not have.

    Example:
        >>> import pathlib, tempfile, jax, jax.numpy as jnp, pyro_ebm.numpyro as ebm
        >>> state = {"key": jax.random.key(0), "a": jnp.ones(3), "step": 1}
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.safetensors"
        >>> ebm.save_checkpoint(path, state)
        >>> like = {"key": jax.random.key(1), "a": jnp.zeros(3), "step": 0}
        >>> ebm.load_checkpoint(path, like)["step"]
        1
    """
    versions = {module.__name__: module.__version__ for module in (jax, numpyro)}
    saved = {
        name: np.asarray(leaf, order="C") if is_array(leaf) else leaf
        for name, leaf in checkpoints.leaves(state, _split, "state")
    }
    checkpoints.write(path, "numpyro", {"pyro_ebm": __version__} | versions, saved, save)


def load_checkpoint(path: FilePath, like: Any) -> Any:
    """Load a file of :func:`save_checkpoint`, given a state of the same structure.

    Args:
        path: Name of the file.
        like: A state of this run, such as ``svi.init(rng_key, ...)``; or shapes alone, from
            ``jax.eval_shape``. Arrays get the sharding of those in ``like``.

    Returns:
        ``like`` with the arrays, keys, numbers and words of the file.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is no checkpoint (a pickle, for example: nothing is ever unpickled), or
            one of the other host, of another version of the layout or of another model: with other
            names, shapes, types of numbers or kinds of keys.
    """
    run = dict(checkpoints.leaves(like, _split, "state"))
    file = checkpoints.read(path, "numpyro", "np")
    new = checkpoints.match(path, file, run, _ADVICE)
    new = {name: _placed(leaf, run[name]) for name, leaf in new.items()}
    return checkpoints.join(like, _split, "state", new)


def _split(node: Any) -> Node | None:
    """Inner nodes: pytrees, random keys, and settings, which are leaves to JAX."""
    if is_array(node):
        return _key(node) if jnp.issubdtype(node.dtype, jax.dtypes.prng_key) else None
    if tree_util.all_leaves([node]):
        return container(node)
    children, structure = tree_util.tree_flatten_with_path(node)
    return Node({tree_util.keystr(path): leaf for path, leaf in children}, structure.unflatten)


def _key(key: Any) -> Node:
    impl: list[str] = []

    def data(key: Array) -> Array:
        impl.append(str(random.key_impl(key)))
        return random.key_data(key)

    # Of shapes alone, too.
    shapes = jax.eval_shape(data, key)
    numbers = random.key_data(key) if isinstance(key, Array) else shapes
    children = {".impl": Fixed(impl[0]), ".data": numbers}
    return Node(children, lambda new: random.wrap_key_data(new[1], impl=new[0]))


def _placed(leaf: Any, like: Any) -> Any:
    """Make a leaf of a file the kind of array that the run has."""
    if not is_array(like):
        return leaf
    if isinstance(like, np.ndarray | np.generic):
        return leaf if isinstance(like, np.ndarray) else leaf[()]
    if like.ndim == 0 and getattr(like, "weak_type", False):
        # A strong type would compile everything anew.
        return jnp.asarray(leaf.item())
    is_placed = like.committed if isinstance(like, Array) else like.sharding is not None
    return jax.device_put(leaf, like.sharding) if is_placed else jnp.array(leaf)
