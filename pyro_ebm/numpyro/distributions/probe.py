"""Probe of an energy inside of ``jit``, where its parameters and its values are not known."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from numpyro.util import not_jax_tracer

from pyro_ebm.core.distributions.probe import check_number_of_rows, check_rows, check_same

_call = jax.jit(check_number_of_rows, static_argnames="site")


def probe_rows(distribution: Any, value: Any, site: str | None) -> None:
    """Raise unless an energy takes any number of rows, independent of each other and of chance.

    Numbers that depend on those of a trace cannot be compared. Others stand in for them: rows that
    are independent are so with any parameters, and batch norm and dropout show with most.
    """
    if are_known((distribution, value)):
        check_rows(distribution, value, site)
        return
    jax.eval_shape(lambda x: check_number_of_rows(distribution, x, site), value)
    with jax.ensure_compile_time_eval():
        try:
            known, values = jax.tree.map(_known, (distribution, value))
            first, second = _call(known, values, site)
        except Exception:  # Numbers of a mesh, or in what is no pytree, are the trace's alone.
            return
        if are_known((first, second)):
            check_same(distribution, first, second, site)


def are_known(tree: Any) -> bool:
    """Whether no number depends on those of a trace."""
    return all(map(not_jax_tracer, jax.tree.leaves(tree)))


def _known(leaf: Any) -> Any:
    if not_jax_tracer(leaf):
        return leaf
    key, shape = random.key(leaf.size), leaf.shape
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return random.split(key, shape)
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros(shape, leaf.dtype)
    return _stand_in(key, shape).astype(leaf.dtype)


def _stand_in(key: Array, shape: tuple[int, ...]) -> Array:
    """Make numbers of the size of weights; positive ones for scales, variances and offsets."""
    if len(shape) < 2:
        return random.uniform(key, shape, minval=0.5, maxval=1.5)
    return random.normal(key, shape) / shape[-1] ** 0.5
