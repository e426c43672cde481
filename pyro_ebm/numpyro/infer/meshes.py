"""Arrays on meshes with explicit axes, as JAX makes them by default, and with manual ones."""

from collections.abc import Callable
from math import prod
from typing import Any

import jax
from jax.sharding import (
    AxisType,
    PartitionSpec,
    auto_axes,
    get_abstract_mesh,
    use_abstract_mesh,
)

from pyro_ebm.numpyro.distributions.bound_energy import StaticPytree


def with_automatic_axes(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function, its arguments' axes left to the compiler; its results are replicated.

    With explicit axes every reshape of sharded data, in energies and hosts too, would have to name
    its sharding.
    """
    arrays = [leaf for leaf in jax.tree.leaves(args) if isinstance(leaf, jax.Array)]
    meshes = [jax.typeof(array).sharding.mesh for array in arrays]
    explicit = [mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types]
    if not explicit:
        return function(*args)

    @jax.jit  # Elsewhere an abstract mesh has no devices.
    def call(packed: StaticPytree) -> Any:
        with use_abstract_mesh(explicit[0]):
            return automatic(packed)

    automatic = auto_axes(lambda packed: function(*packed.content), out_sharding=PartitionSpec())
    return call(StaticPytree.pack(args))


def num_parts() -> int:
    """Return the number of devices that have each a part, inside of ``shard_map``, or 1."""
    mesh = get_abstract_mesh()
    return prod(mesh.shape[name] for name in mesh.manual_axes)
