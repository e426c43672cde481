"""States of runs with NumPyro: pytrees, random keys and settings."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random, tree_util

from pyro_ebm._state_trees import Fixed, Node, container, is_array


def split(node: Any) -> Node | None:
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


def placed(leaf: Any, like: Any) -> Any:
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
