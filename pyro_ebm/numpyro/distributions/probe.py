"""Probe of an energy inside of ``jit``, where its parameters and its values are not known."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
    # Operations on known numbers would otherwise be a part of the trace.
    with jax.ensure_compile_time_eval():
        found = _evaluate_stand_ins(distribution, value, site)
        if found is not None:
            check_same(distribution, *found, site)
            return
    jax.eval_shape(lambda x: check_number_of_rows(distribution, x, site), value)


def _evaluate_stand_ins(
    distribution: Any, value: Any, site: str | None
) -> tuple[Array, Array] | None:
    """Evaluate an energy twice at numbers that stand in for others; None where none can."""
    try:
        known, values = jax.tree.map(_stand_in, (distribution, value))
        found = _call(known, values, site)
    except Exception:  # Numbers of a mesh, or in what is no pytree; or a shape that is wrong.
        return None
    return found if are_known(found) else None


def are_known(tree: Any) -> bool:
    """Return whether no number depends on those of a trace."""
    return all(map(not_jax_tracer, jax.tree.leaves(tree)))


def _stand_in(leaf: Any) -> Any:
    if not_jax_tracer(leaf):
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return random.split(random.key(0), leaf.shape)
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return np.zeros(leaf.shape, leaf.dtype)
    return _like_weights(leaf.shape).astype(leaf.dtype)


def _like_weights(shape: tuple[int, ...]) -> np.ndarray:
    """Make numbers of the size of weights; positive ones for scales, variances and offsets."""
    rng = np.random.default_rng(math.prod(shape))  # By NumPy: nothing is compiled.
    if len(shape) < 2:
        return rng.uniform(0.5, 1.5, shape)
    return rng.normal(size=shape) / shape[-1] ** 0.5
