"""Discrete supports of NumPyro, column by column."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import constraints
from numpyro.util import not_jax_tracer

from pyro_ebm.core.columns import Columns, are_values, codes_of, codes_up_to, describe_columns
from pyro_ebm.core.numerics import as_real


class ColumnConstraint(constraints.Constraint):
    """Constraint on vectors of numbers and codes, discrete as a whole."""

    is_discrete = True
    event_dim = 1

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    def __call__(self, value: Any) -> Array:
        return are_values(self.columns, jnp.asarray(value))

    def __repr__(self) -> str:
        return f"ColumnConstraint({describe_columns(self.columns)})"

    def feasible_like(self, prototype: Any) -> Array:
        return jnp.zeros_like(prototype)

    def tree_flatten(self) -> Any:
        return (), ((), {"columns": self.columns})

    def eq(self, other: object, static: bool = False) -> bool:  # noqa: ARG002, FBT001, FBT002
        return isinstance(other, ColumnConstraint) and self.columns == other.columns


def columns_of(support: Any, event_shape: tuple[int, ...]) -> Any:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if isinstance(support, ColumnConstraint):
        return support.columns * (math.prod(event_shape) // len(support.columns)), as_real
    if isinstance(support, type(constraints.boolean)):
        return codes_of(2, event_shape), _as_codes
    if isinstance(support, constraints.integer_interval):
        if not all(map(not_jax_tracer, (support.lower_bound, support.upper_bound))):
            raise ValueError(
                "Expected a base that compiled code knows the codes of, such as Categorical or "
                "ColumnMarginals, got counts between numbers that are arguments there, as those of "
                "Binomial and DiscreteUniform."
            )
        if not np.any(support.lower_bound):
            return codes_up_to(support.upper_bound, event_shape), _as_codes
    return None


def are_indices(base: Any) -> bool:
    """Whether a distribution looks up probabilities by its values."""
    support: Any = getattr(base, "support", None)
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return isinstance(support, constraints.integer_interval)


def _as_codes(value: Any) -> Array:
    return jnp.asarray(value).astype(int)
