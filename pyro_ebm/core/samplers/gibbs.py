r"""Gibbs sampling of the columns of an event: settings, and the arithmetic of one column.

With :math:`x_{-c}` the other columns, a code is drawn from its conditional distribution,
:math:`p(x_c = v \mid x_{-c}) \propto e^{-U(v, x_{-c})}`, by Gumbel noise :math:`g_v`: it is the
:math:`v` with the largest :math:`g_v - U(v, x_{-c})`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from array_api_compat import array_namespace, device

from pyro_ebm.core.columns import Columns
from pyro_ebm.core.numerics import expand_right
from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.replica_exchange import ReplicaExchange
from pyro_ebm.core.samplers.settings import Kernel, Source, check_exact, check_sampler


@dataclass(frozen=True)
class ColumnKernel(Kernel):
    """Base of kernels of discrete columns, which a kernel of numeric columns goes with.

    Raises:
        TypeError: If ``numeric`` is no kernel.
        ValueError: If it does not accept or reject its moves.
    """

    numeric: Any = None
    columns: Columns = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.numeric is not None:
            check_exact(check_sampler(self.numeric, "numeric"))

    def check_bound(self) -> None:
        """Raise unless the columns of a target are known."""
        if not self.columns:
            raise ValueError(
                f"Expected {self} on a distribution whose columns are known, as in run_chains, "
                "SMC and objectives, got a potential alone: give `columns`."
            )

    @property
    def has_numbers(self) -> bool:
        """Presence of numeric columns."""
        return any(column.is_numeric for column in self.columns)

    @property
    def step_size(self) -> float | None:
        """Step size of the kernel of numeric columns."""
        return getattr(self.numeric, "step_size", None)

    @property
    def target_accept_prob(self) -> float | None:
        """Mean acceptance that its step size is tuned to; None without numeric columns."""
        return self.numeric.target_accept_prob if self.has_numbers else None

    @property
    def adapt_mass_matrix(self) -> bool:
        """Adaptation of a scale for each numeric column in warm-up."""
        return self.has_numbers and self.numeric.adapt_mass_matrix

    def holding_codes(self, state: ChainState) -> ChainState:
        """Return a state in which ``numeric`` moves numbers alone: a scale of 0 holds a code."""
        event_shape = state.position.shape[state.potential.ndim :]
        mask = numeric_mask(self.columns, state.position).reshape(event_shape)
        return state._replace(scale=state.scale * mask)


class Gibbs(ColumnKernel):
    r"""Gibbs sampling: every column in turn from its conditional distribution; always accepted.

    A step is a sweep over all columns of codes. A column of :math:`S` codes costs one call of the
    energy, on :math:`S - 1` values for each chain. Numeric columns, if there are any, first move
    together, given the codes, by a kernel; then a step costs one gradient more.

    Args:
        numeric: Kernel of numeric columns, which accepts or rejects its moves. Default:
            ``MALA()``.
        columns: A ``Column`` for each coordinate of the flattened event. Default: those of the
            distribution; a potential alone has none.

    References:
        | Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images
          (Geman and Geman, 1984)
    """


def moves_codes(sampler: Any) -> bool:
    """Whether a kernel moves discrete columns, perhaps at all levels of replica exchange."""
    return isinstance(getattr(sampler, "kernel", sampler), ColumnKernel)


def with_columns(sampler: Any, columns: Columns) -> Any:
    """Return a kernel of discrete columns, perhaps inside replica exchange, for some columns."""
    if isinstance(sampler, ReplicaExchange):
        return replace(sampler, kernel=with_columns(sampler.kernel, columns))
    return replace(sampler, columns=columns)


def kernel_for(sampler: Any, target: Any) -> Any:
    """Return a kernel for the columns of a target; raise unless it can move them."""
    if moves_codes(sampler):
        if target.columns is None:
            raise ValueError(
                f"Expected a support with discrete columns for {sampler}, got a continuous one: "
                "use MALA or HMC."
            )
        return with_columns(sampler, target.columns)
    if target.columns is not None and not isinstance(sampler, Source):
        raise ValueError(f"Expected a sampler of discrete columns, such as Gibbs(), got {sampler}.")
    return sampler


def blocks(columns: Columns) -> Iterator[tuple[int, range]]:
    """Yield runs of neighbouring columns with the same number of codes, and that number."""
    start = 0
    for size, run in groupby(columns, lambda column: column.size):
        stop = start + len(list(run))
        if size:
            yield size, range(start, stop)
        start = stop


def alternatives(position: Any, column: Any, size: int) -> Any:
    """Return the other values that a column can take, ``(size - 1, *chains, num_columns)``.

    Positions have shape ``(*chains, num_columns)``. The k-th value is k codes on, modulo the size.
    """
    xp = array_namespace(position)
    steps = xp.arange(1, size, dtype=position.dtype, device=device(position))
    return _with_code(position[None, ...], column, size, expand_right(steps, position.ndim))


def choose(
    position: Any, column: Any, size: int, potential: Any, others: Any, noise: Any
) -> tuple[Any, Any]:
    """Draw the code of a column; return the new position and potential.

    Args:
        position: Shape ``(*chains, num_columns)``.
        column: Number of the column.
        size: Its number of codes.
        potential: Potentials there, shape ``(*chains,)``.
        others: Potentials of :func:`alternatives`, shape ``(size - 1, *chains)``.
        noise: Standard Gumbel noise, shape ``(size, *chains)``.
    """
    xp = array_namespace(potential)
    potentials = xp.concat([potential[None, ...], others])
    rates = xp.where(xp.isnan(potentials), xp.full_like(potentials, -math.inf), noise - potentials)
    chosen = xp.argmax(rates, axis=0)[None, ...]
    new = xp.take_along_axis(potentials, chosen, axis=0)[0, ...]
    steps = xp.astype(chosen[0, ...], position.dtype)
    return _with_code(position, column, size, steps), new


def of_numbers(columns: Columns, gradient: Any, num_chain_dims: int) -> Any:
    """Return a gradient ``(*chains, *event)`` with 0 for the codes, whatever it has there."""
    xp, event_shape = array_namespace(gradient), gradient.shape[num_chain_dims:]
    is_number = xp.reshape(numeric_mask(columns, gradient), event_shape) > 0
    return xp.where(is_number, gradient, xp.zeros_like(gradient))


def numeric_mask(columns: Columns, like: Any) -> Any:
    """Return 1 for numeric columns and 0 for others, shape ``(num_columns,)``."""
    xp = array_namespace(like)
    mask = [float(column.is_numeric) for column in columns]
    return xp.asarray(mask, dtype=like.dtype, device=device(like))


def _with_code(position: Any, column: Any, size: int, steps: Any) -> Any:
    """Move a column on by some codes; ``steps`` broadcast with the chains."""
    xp = array_namespace(position)
    here = xp.arange(position.shape[-1], device=device(position)) == column
    code = (position[..., column] + steps) % size
    return xp.where(here, code[..., None], position)
