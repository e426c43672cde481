"""Columns of numbers and codes as a constraint of torch, and those of its own constraints."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_ebm.core.columns import Columns, are_values, codes_of, codes_up_to, describe_columns
from pyro_ebm.core.numerics import as_real


class ColumnConstraint(constraints.Constraint):
    """Vectors with a number or a code in each column; discrete, as no gradient moves all of it."""

    is_discrete = True
    event_dim = 1

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    def __repr__(self) -> str:
        return f"ColumnConstraint({describe_columns(self.columns)})"

    def check(self, value: Tensor) -> Tensor:
        return are_values(self.columns, value)


def columns_of(support: Any, event_shape: tuple[int, ...]) -> Any:
    """Return columns, and what makes numbers their values; None for a continuous support."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if isinstance(support, ColumnConstraint):
        return support.columns * (math.prod(event_shape) // len(support.columns)), as_real
    if support is constraints.boolean:
        return codes_of(2, event_shape), as_real
    if isinstance(support, constraints.integer_interval) and support.lower_bound == 0:
        return codes_up_to(support.upper_bound, event_shape), torch.Tensor.long
    return None
