r"""Noise on columns of codes: Markov chains on their values, run for a time.

With a graph on the :math:`S` codes of a column and its Laplacian :math:`R` (rate one along each
edge, rows that sum to zero), a code moves by :math:`Q_t = e^{tR}`, which is symmetric: it is the
kernel back too. As :math:`t \to \infty` energy discrepancy becomes maximum likelihood, as
:math:`t \to 0` it compares neighbours alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_positive
from pyro_ebm.core.columns import Column, Columns
from pyro_ebm.core.objectives.perturbations import (
    ColumnPerturbation,
    GaussianPerturbation,
    check_continuous,
)
from pyro_ebm.core.objectives.settings import convert_fields
from pyro_ebm.core.samplers.gibbs import alternatives, blocks


@dataclass(frozen=True)
class _Walk(ColumnPerturbation):
    time: float

    def __post_init__(self) -> None:
        convert_fields(self, time=check_positive)

    def transition_matrix(self, size: int) -> np.ndarray:
        """Return :math:`Q_t` of a column of this many codes, shape ``(size, size)``."""
        return _normalized(self._matrix(size))

    def _matrix(self, size: int) -> np.ndarray:
        raise NotImplementedError


class Uniform(_Walk):
    r"""Noise on nominal columns: a code stays, or becomes any of all codes.

    .. math:: Q_t = e^{-t} I + (1 - e^{-t}) \frac{1}{S} \mathbf 1 \mathbf 1^\top

    A bit flips with probability :math:`\epsilon = (1 - e^{-t}) / 2`, so
    :math:`t = -\log(1 - 2 \epsilon)`.

    Args:
        time: :math:`t`, one number for all columns; see :class:`Product` for one of each.

    Raises:
        ValueError: If the time is not a positive number.

    References:
        | Energy-Based Modelling for Discrete and Mixed Data via Heat Equations on Structured Spaces
          (Schroder et al., 2024), https://arxiv.org/abs/2412.01019

    Example:
        >>> Uniform(0.3).transition_matrix(4)[0].round(4).tolist()
        [0.8056, 0.0648, 0.0648, 0.0648]
    """

    def _matrix(self, size: int) -> np.ndarray:
        stay = math.exp(-self.time)
        return stay * np.eye(size) + (1.0 - stay) / size


class Cyclic(_Walk):
    r"""Noise on cyclic columns: a random walk on a circle.

    .. math::
        (Q_t)_{ab} = \frac1S \sum_{p<S} e^{t \lambda_p} \cos \frac{2 \pi p (a - b)}{S}, \qquad
        \lambda_p = 2 \Big(\cos \frac{2 \pi p}{S} - 1\Big)

    With :math:`t = \tau S^2` it tends to Gaussian noise of *variance* :math:`2 \tau` on a circle of
    length one.

    Args:
        time: :math:`t`, as in :class:`Uniform`.

    Raises:
        ValueError: If the time is not a positive number, or a column has two codes (their edge
            would count twice).

    Example:
        >>> Cyclic(0.3).transition_matrix(4)[0].round(4).tolist()
        [0.5997, 0.1747, 0.0509, 0.1747]
    """

    def _matrix(self, size: int) -> np.ndarray:
        if size < 3:  # noqa: PLR2004
            raise ValueError(f"Expected columns of 3 codes or more on a circle, got {size}.")
        angle = 2.0 * math.pi * np.arange(size) / size
        decay = np.exp(2.0 * self.time * (np.cos(angle) - 1.0))
        row = (decay * np.cos(np.outer(np.arange(size), angle))).mean(-1)
        lag = np.arange(size)
        return row[(lag[:, None] - lag) % size]


class Ordinal(_Walk):
    r"""Noise on ordinal columns: a random walk on a line, reflected at its ends.

    .. math::
        Q_t = \sum_{p<S} e^{t \lambda_p} v_p v_p^\top, \qquad
        \lambda_p = 2 \Big(\cos \frac{\pi p}{S} - 1\Big), \quad
        v_p(a) \propto \cos \frac{\pi p (2 a - 1)}{2 S}

    With :math:`t = \tau S^2` it tends to Gaussian noise of *variance* :math:`2 \tau` on an interval
    of length one. A bit flips with probability :math:`(1 - e^{-2t}) / 2`.

    Args:
        time: :math:`t`, as in :class:`Uniform`.

    Raises:
        ValueError: If the time is not a positive number.

    Example:
        >>> Ordinal(0.3).transition_matrix(4)[0].round(4).tolist()
        [0.7715, 0.1976, 0.028, 0.0029]
    """

    def _matrix(self, size: int) -> np.ndarray:
        angle = math.pi * np.arange(size) / size
        decay = np.exp(2.0 * self.time * (np.cos(angle) - 1.0))
        waves = np.cos(np.outer(np.arange(size) + 0.5, angle))
        waves /= np.linalg.norm(waves, axis=0)
        return (waves * decay) @ waves.T


class Masking(_Walk):
    r"""Noise that masks columns: forward each with probability :math:`1 - e^{-t}`.

    Back, a masked column is uniform on its codes, and the others are kept.

    Args:
        time: :math:`t`.

    Raises:
        ValueError: If the time is not a positive number.
    """

    @property
    def share(self) -> float:
        """Share of columns that are masked."""
        return 1.0 - math.exp(-self.time)


@dataclass(frozen=True)
class MaskOne(ColumnPerturbation):
    r"""Noise that masks one column, chosen at random; back, it is uniform on its codes.

    With ``exact`` the average over columns and codes is taken, without a draw:

    .. math::
        \ell(x) = \frac1C \sum_{c=1}^C \Big(
        \log \sum_{v} e^{U(x) - U(v, x_{-c})} - \log S_c \Big)

    which is *pseudo-likelihood*: :math:`C \ell + \sum_c \log S_c = -\sum_c \log p(x_c \mid
    x_{-c})`. It costs :math:`1 + \sum_c (S_c - 1)` energies for each value, and sees little of the
    weights of modes that differ in many columns; :class:`Masking` and long times see more.

    Args:
        exact: Whether to average over all; ``num_samples`` and ``stabilization`` then play no role.

    References:
        | Statistical analysis of non-lattice data (Besag, 1975)
    """

    exact: bool = False


@dataclass(frozen=True)
class Product(ColumnPerturbation):
    """Independent noise on each column, by a kernel of its own.

    Args:
        kernels: One for each column: :class:`Uniform`, :class:`Cyclic` or :class:`Ordinal` of
            codes, ``GaussianPerturbation`` of numbers.

    Raises:
        TypeError: If one of them is none of these.

    Example:
        >>> Product([Uniform(1.0), Cyclic(0.5)]).kernels
        (Uniform(time=1.0), Cyclic(time=0.5))
    """

    kernels: Sequence[Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernels", tuple(self.kernels))
        for kernel in self.kernels:
            if isinstance(kernel, Masking) or not isinstance(kernel, _Walk | GaussianPerturbation):
                raise TypeError(
                    "Expected `kernels` of Uniform, Cyclic, Ordinal or GaussianPerturbation, got "
                    f"{kernel!r}."
                )


def kernel_on(
    perturbation: Any, columns: Columns | None, of_walks: Callable[..., Any], of_masks: Any
) -> Any:
    """Return noise with ``forward`` and ``backward``, on a target with these columns or None.

    Args:
        perturbation: Noise of columns; noise on numbers is checked, and returned as it is.
        columns: Columns of the target.
        of_walks: Makes the host's noise from the results of :func:`walks`.
        of_masks: Makes that of masks from a perturbation and sizes of columns.
    """
    if not isinstance(perturbation, ColumnPerturbation):
        return check_continuous(perturbation, columns)
    columns = check_has_columns(perturbation, columns)
    if isinstance(perturbation, Masking | MaskOne):
        return of_masks(perturbation, check_codes(perturbation, columns))
    return of_walks(*walks(perturbation, columns))


@lru_cache
def walks(perturbation: Any, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Tabulate independent noise on each column.

    Returns:
        Cumulative rows of transition matrices, shape ``(C, S, S)`` with the largest size S;
        standard deviations of numbers, shape ``(C,)``, 0 for codes.
    """
    kernels = getattr(perturbation, "kernels", (perturbation,) * len(columns))
    if len(kernels) != len(columns):
        raise ValueError(f"Expected {len(columns)} kernels, one a column, got {len(kernels)}.")
    largest = max(column.size for column in columns)
    # One from the last code on, whatever rounding does.
    tables, deviations = np.ones((len(columns), largest, largest)), np.zeros(len(columns))
    for c, (kernel, column) in enumerate(zip(kernels, columns, strict=True)):
        _check_fit(kernel, column, c)
        if column.is_numeric:
            deviations[c] = kernel.standard_deviation
        else:
            rows = kernel.transition_matrix(column.size).cumsum(-1)
            tables[c, : column.size, : column.size - 1] = rows[:, :-1]
    return tables, deviations


def neighbors(target: Any, x: Any) -> Any:
    """List values, and all that differ from them in one column: ``(1 + sum(S - 1), *batch, ...)``.

    Raises:
        ValueError: If the target has no columns of codes alone.
    """
    columns = check_has_columns(MaskOne(exact=True), target.columns)
    check_codes(MaskOne(exact=True), columns)
    xp, num_columns = array_namespace(x), len(columns)
    flat = xp.reshape(x, (-1, num_columns))
    rows = [flat[None, ...]]
    for size, run in blocks(columns):
        rows += [alternatives(flat, column, size) for column in run]
    rows = xp.concat(rows)
    return xp.reshape(rows, (rows.shape[0], *x.shape))


def check_has_columns(perturbation: Any, columns: Columns | None) -> Columns:
    """Return the columns of a target; raise unless it has some of codes."""
    if columns is None:
        raise ValueError(
            f"Expected a discrete support for {perturbation}, got a continuous one: give a "
            "`variance`."
        )
    return columns


def check_codes(perturbation: Any, columns: Columns) -> np.ndarray:
    """Return the sizes of columns; raise unless all have codes, as masks need."""
    if any(column.is_numeric for column in columns):
        raise ValueError(
            f"Expected columns of codes alone for {perturbation}, got numeric ones: use Product."
        )
    return np.asarray([column.size for column in columns])


def _check_fit(kernel: Any, column: Column, number: int) -> None:
    if column.is_numeric != isinstance(kernel, GaussianPerturbation):
        raise ValueError(
            f"Expected noise that fits column {number}, {column}, got {kernel}: numbers take "
            "GaussianPerturbation, codes Uniform, Cyclic or Ordinal, both together Product."
        )


def _normalized(matrix: np.ndarray) -> np.ndarray:
    """Set tiny negative numbers to zero, and the sums of rows to one."""
    matrix = np.maximum(matrix, 0.0)
    return matrix / matrix.sum(-1, keepdims=True)
