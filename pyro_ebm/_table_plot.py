"""Plot of draws of tables beside data: every column, and every pair of them."""

from collections.abc import Iterable
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_ebm._arrays import to_numpy
from pyro_ebm._colors import BLUE, VERMILLION
from pyro_ebm._extras import require
from pyro_ebm._histograms import bins_around, density
from pyro_ebm.core.columns import Column, check_columns, names_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More dots or panels would hide each other.
_MAX_DOTS, _MAX_COLUMNS = 1000, 8
_SIDE = 1.8  # inches


def plot_table(columns: Iterable[Column], draws: Any, data: Any) -> "np.ndarray":
    """Plot draws of a table beside data, in a new figure.

    On the diagonal each column: its histogram, or the frequencies of its codes. Data are above the
    diagonal and draws below, pair by pair in mirrored places: dots, moved a little along codes, or
    shares of pairs of codes, the darker the more frequent.

    Args:
        columns: A ``Column`` for each coordinate, at most 8; their names are the labels.
        draws: Shape ``(..., num_columns)``, for example the samples of ``Chains``.
        data: Shape ``(N, num_columns)``.

    Returns:
        The axes, shape ``(num_columns, num_columns)``.

    Raises:
        ValueError: If a shape is wrong, or there are too many columns.

    Example:
        >>> columns = [Column.numeric("age"), Column.nominal(3, "group")]
        >>> table = np.stack([np.linspace(0.0, 1.0, 9), np.arange(9) % 3], axis=-1)
        >>> plot_table(columns, draws=table, data=table).shape
        (2, 2)
    """
    columns = check_columns(columns)
    if len(columns) > _MAX_COLUMNS:
        raise ValueError(
            f"Expected at most {_MAX_COLUMNS} columns, got {len(columns)}: plot some of them, "
            "plot_table([columns[c] for c in some], draws[..., some], data[:, some])."
        )
    tables = {"data": _table(columns, data, "data"), "draws": _table(columns, draws, "draws")}
    axes = _panels(len(columns))
    for c, column in enumerate(columns):
        _draw_column(axes[c, c], column, {k: table[:, c] for k, table in tables.items()})
    for row, column in permutations(range(len(columns)), 2):
        name, color = ("data", BLUE) if row < column else ("draws", VERMILLION)
        pair = [column, row]
        _draw_pair(axes[row, column], [columns[c] for c in pair], tables[name][:, pair], color)
        axes[row, column].set(xlim=axes[column, column].get_xlim(), ylim=axes[row, row].get_xlim())
    for c, name in enumerate(names_of(columns, "column")):
        axes[-1, c].set_xlabel(name)
        # The first row begins with a histogram, which has no values upwards.
        axes[c, 0].set_ylabel(name if c else "")
    axes[0, 0].figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right")
    return axes


def _table(columns: Any, values: Any, name: str) -> np.ndarray:
    table = to_numpy(values)
    if table.ndim < 2 or table.shape[-1] != len(columns) or not table.size:  # noqa: PLR2004
        raise ValueError(
            f"Expected `{name}` of shape (..., {len(columns)}), one for each column, got "
            f"{table.shape}."
        )
    return table.reshape(-1, len(columns))


def _panels(number: int) -> np.ndarray:
    with require("matplotlib"):
        import matplotlib.pyplot as plt
    side = _SIDE * number + 1
    options = {"figsize": (side, side), "squeeze": False, "layout": "constrained"}
    return plt.subplots(number, number, sharex="col", **options)[1]


def _draw_column(ax: "Axes", column: Column, samples: dict[str, np.ndarray]) -> None:
    """Draw a column of data and draws; densities or frequencies have no axis of their own."""
    edges = (
        bins_around(*samples.values()) if column.is_numeric else np.arange(column.size + 1) - 0.5
    )
    for (name, sample), color in zip(samples.items(), (BLUE, VERMILLION), strict=True):
        is_data = name == "data"
        heights, alpha = density(sample, edges), 0.3 if is_data else 1.0
        ax.stairs(heights, edges, fill=is_data, alpha=alpha, color=color, lw=1.5, label=name)
    ax.set(yticks=[], xlim=edges[[0, -1]])
    if not column.is_numeric:
        _mark_codes(ax, column, "x")


def _draw_pair(ax: "Axes", columns: list[Column], pairs: np.ndarray, color: str) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    if columns[0].is_numeric or columns[1].is_numeric:
        pairs = pairs[:: 1 + len(pairs) // _MAX_DOTS]
        shift = np.random.default_rng(0).uniform(-0.3, 0.3, pairs.shape)
        pairs = pairs + np.where([column.is_numeric for column in columns], 0.0, shift)
        ax.plot(*pairs.T, "o", ms=2, mew=0, color=color, alpha=0.5)
    else:
        edges = [np.arange(column.size + 1) - 0.5 for column in columns]
        shares = np.histogram2d(*pairs.T, bins=edges)[0] / len(pairs)
        shades = LinearSegmentedColormap.from_list("shares", ["white", color])
        ax.pcolormesh(*edges, shares.T, cmap=shades, vmin=0)
    for axis, column in zip("xy", columns, strict=True):
        if not column.is_numeric:
            _mark_codes(ax, column, axis)


def _mark_codes(ax: "Axes", column: Column, axis: str) -> None:
    ax.set(**{f"{axis}ticks": range(0, column.size, 1 + (column.size - 1) // 6)})
