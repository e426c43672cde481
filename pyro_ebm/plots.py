"""Plots of energy-based models that ArviZ does not have.

Each takes arrays of NumPy or a host, and plots on ``ax``, by default a new figure's, which it
returns. Make a figure of several with ``layout="constrained"``: titles need the room.
"""

from collections.abc import Callable
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, device
from scipy.stats import binom

from pyro_ebm._arrays import to_numpy
from pyro_ebm._colors import BLUE, CHAIN_COLORS, VERMILLION
from pyro_ebm._extras import require
from pyro_ebm._histograms import bins_around, density, draw_histogram, finite
from pyro_ebm._table_plot import plot_table as plot_table
from pyro_ebm.calibration import Calibration
from pyro_ebm.core.checks import check_choice, check_positive, check_positive_integer
from pyro_ebm.diagnostics import Chains

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = Any
Limits = tuple[tuple[float, float], tuple[float, float]]

_STYLES = {"forward": (BLUE, "-"), "reverse": (VERMILLION, "--")}
# From middle gray to white: every color is visible on them.
_GRAYS = [str(shade) for shade in np.linspace(0.5, 1.0, 11)]
# More lines or dots would hide each other.
_MAX_LINES, _MAX_DOTS = len(CHAIN_COLORS), 2000


def plot_energy_landscape(
    energy: Callable[[Array], Array],
    draws: Any,
    *,
    paths: bool = False,
    limits: Limits | None = None,
    energy_range: float = 10.0,
    num_points: int = 100,
    ax: "Axes | None" = None,
) -> "Axes":
    """Plot an energy in two dimensions, with draws or the paths of chains on it.

    Args:
        energy: From ``(N, 2)`` to ``(N,)``, arrays of the kind of ``draws``; for example the
            ``potential`` of an energy-based distribution, which includes the base.
        draws: Chains, or values of shape ``(draw, 2)`` or ``(chain, draw, 2)``. At most 2000 evenly
            spaced ones are plotted.
        paths: Whether to join the draws of a chain, from a circle to a square. Plots every draw of
            the first six chains.
        limits: ``((left, right), (bottom, top))``. Default: around the draws.
        energy_range: Nats above the lowest energy that the colors cover: at 10 a density has
            fallen to 1/20000 of its peak.
        num_points: Grid points on a side.
        ax: Axes to plot on.

    Raises:
        ValueError: If a shape is wrong or no energy on the grid is finite.
    """
    check_positive("energy_range", energy_range)
    check_positive_integer("num_points", num_points, minimum=2)
    values = draws.samples if isinstance(draws, Chains) else draws
    shape = tuple(values.shape)
    if len(shape) not in (2, 3) or shape[-1] != 2:
        raise ValueError(
            f"Expected draws of shape (draw, 2) or (chain, draw, 2), got {shape}. Of more "
            "dimensions plot two: draws[..., :2], and an energy that holds the others fixed."
        )
    chains = to_numpy(values).reshape(shape if len(shape) == 3 else (1, *shape))
    box = limits if limits is not None else _limits(chains.reshape(-1, 2))
    sides = [np.linspace(low, high, num_points) for low, high in box]
    height = _height(energy, np.stack(np.meshgrid(*sides), axis=-1), like=values)
    ax = _axes(ax)
    contours = ax.contourf(
        *sides, height, levels=np.linspace(0, energy_range, 11), colors=_GRAYS, extend="max"
    )
    ax.figure.colorbar(contours, ax=ax, label="energy above its lowest (nats)")
    if paths:
        _draw_paths(ax, chains[:_MAX_LINES])
    else:
        dots = chains.reshape(-1, 2)
        dots = dots[:: 1 + len(dots) // _MAX_DOTS]
        ax.plot(*dots.T, "o", ms=3, mew=0, color=VERMILLION, alpha=0.5)
    ax.set(xlabel="$x_1$", ylabel="$x_2$", xlim=sides[0][[0, -1]], ylim=sides[1][[0, -1]])
    return ax


def plot_energy_histogram(
    data_energies: Array, model_energies: Array, *, ax: "Axes | None" = None
) -> "Axes":
    """Plot the energies of data against the energies of draws from the model.

    In a trained model whose chains have mixed, the two agree. Draws of lower energy than the data
    mean that the model puts its mass elsewhere; draws of higher energy, or chains that disagree,
    mean that the sampler has not converged. Outliers are left out; the legend has their share if it
    is above one percent.

    Args:
        data_energies: Shape ``(N,)``: ``distribution.energy(data)``, to compare with
            ``chains.statistics["ebm_energy"]``, or ``distribution.potential`` of data and draws,
            which includes the base; not one of each.
        model_energies: Shape ``(draw,)`` or ``(chain, draw)``; up to six chains have a line each.
        ax: Axes to plot on.

    Raises:
        ValueError: If a shape is wrong or no energy is finite.
    """
    data, model = to_numpy(data_energies), to_numpy(model_energies)
    if data.ndim != 1 or model.ndim not in (1, 2):
        raise ValueError(
            "Expected energies of data of shape (N,) and of the model of shape (draw,) or "
            f"(chain, draw), got {data.shape} and {model.shape}."
        )
    ax = _axes(ax)
    bins = bins_around(data, model)
    draw_histogram(ax, data, bins, "data", BLUE)
    draw_histogram(ax, model, bins, "model", VERMILLION, linestyle="--")
    if model.ndim == 2 and 1 < len(model) <= _MAX_LINES:
        for index, chain in enumerate(model):
            label = "its chains" if index == 0 else None
            ax.stairs(density(chain, bins), bins, color=VERMILLION, lw=0.5, label=label)
    ax.set(xlabel="energy (nats)", ylabel="density (1/nat)", xlim=bins[[0, -1]])
    ax.legend(frameon=False)
    return ax


def plot_log_weights(
    result: Any,
    *,
    kind: str = "histogram",
    element: int | tuple[int, ...] = (),
    ax: "Axes | None" = None,
) -> "Axes":
    r"""Plot the log-weights of an estimate of a log-normalizer, to see whether a few dominate.

    Forward log-weights :math:`\log w` give the lower bound, :math:`\log \mathrm{mean}(w)`; those
    of reverse paths, where there are any, the upper one, :math:`-\log \mathrm{mean}(1 / w)`. If
    annealing is slow enough the two histograms overlap, and cross at :math:`\log Z`. Estimate,
    bounds and effective sample size are in the title.

    Args:
        result: Result of ``log_normalizer``, log-weights of shape ``(num_samples, *batch)``.
        kind: ``"histogram"`` of the log-weights, or ``"sorted"``: normalized weights, the
            largest first. The ideal is a flat line at one over their number.
        element: Index of a batch element.
        ax: Axes to plot on.

    Raises:
        ValueError: If there is no weight, none is finite, or ``element`` does not fit ``batch``.

    References:
        | Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse et al., 2015)
    """
    check_choice("kind", kind, ("histogram", "sorted"))
    if getattr(result, "log_weights", None) is None:
        raise ValueError("Expected a result of log_normalizer with log-weights, got one without.")
    element = element if isinstance(element, tuple) else (element,)
    samples = {"forward": _element(result.log_weights, element)}
    if result.reverse_log_weights is not None:
        samples["reverse"] = _element(result.reverse_log_weights, element)
    numbers = {name: to_numpy(getattr(result, name)) for name in ("lower", "estimate", "upper")}
    marks = {name: float(number[element]) for name, number in numbers.items()}
    size = float(to_numpy(result.effective_sample_size)[element])
    ax = _axes(ax)
    if kind == "sorted":
        _draw_sorted(ax, samples)
    else:
        _draw_weights(ax, samples, marks)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in marks.items())
    ax.set_title(
        f"log Z (nats): {figures}\n"
        f"effective sample size {size:.{size < 10:d}f} of {min(map(len, samples.values()))}",
        fontsize="medium",
    )
    ax.legend(frameon=False)
    return ax


def plot_metric(recorder: Any, name: str = "energy_gap", *, ax: "Axes | None" = None) -> "Axes":
    """Plot a metric of a ``MetricsRecorder`` over training, with a line for each site.

    Raises:
        ValueError: If no site has a metric of this name.
    """
    lines = {site: found[name] for site, found in recorder.metrics.items() if name in found}
    if not lines:
        known = sorted({metric for found in recorder.metrics.values() for metric in found})
        raise ValueError(f"Expected one of the metrics {known}, got {name!r}.")
    ax = _axes(ax)
    for (site, values), color in zip(lines.items(), cycle(CHAIN_COLORS), strict=False):
        points = np.stack([recorder.steps, to_numpy(values)])
        # A line from one reading that has the site to the next.
        ax.plot(*points[:, ~np.isnan(points[1])], color=color, label=site)
    ax.set(xlabel="step", ylabel=name.replace("_", " "))
    ax.legend(frameon=False)
    return ax


def plot_ranks(calibration: Calibration, *, ax: "Axes | None" = None) -> "Axes":
    """Plot the ranks of true parameters among draws of their posteriors.

    Of a posterior that is right every bin has as many: 99 of 100 counts are in the gray band. Both
    ends are high where posteriors are too narrow, the middle where they are too wide, one end where
    they are shifted. At most six numbers have a line each.

    Args:
        calibration: Result of ``simulation_based_calibration``.
        ax: Axes to plot on.
    """
    counts, expected = calibration.counts
    columns, p_values = counts.reshape(len(counts), -1), np.ravel(calibration.p_values)
    edges = np.append(0, np.cumsum(expected)) * (calibration.num_draws + 1) / expected.sum()
    low, high = binom.interval(0.99, len(calibration.ranks), expected / expected.sum())
    names = calibration.names
    if len(names) != columns.shape[1]:  # None, or vectors among the parts of a Joint.
        names = tuple(f"number {index}" for index in range(columns.shape[1]))
    ax = _axes(ax)
    ax.stairs(high, edges, baseline=low, fill=True, color="0.85", label="99 of 100")
    ax.stairs(expected, edges, color="0.5", lw=1)
    for index, color in enumerate(CHAIN_COLORS[: columns.shape[1]]):
        label = f"{names[index]} (p = {p_values[index]:.2g})"
        ax.stairs(columns[:, index], edges, color=color, lw=1.5, label=label)
    ax.set(xlabel="rank among draws", ylabel="simulations", xlim=edges[[0, -1]], ylim=(0, None))
    ax.legend(frameon=False)
    return ax


def _axes(ax: "Axes | None") -> "Axes":
    with require("matplotlib"):
        import matplotlib.pyplot as plt
    return ax if ax is not None else plt.subplots(layout="constrained")[1]


def _limits(points: np.ndarray) -> np.ndarray:
    """Return limits around the finite points, with a margin; shape (2, 2)."""
    inside = points[np.isfinite(points).all(axis=1)]
    if not len(inside):
        raise ValueError("Expected finite draws or `limits`, got neither.")
    low, high = inside.min(axis=0), inside.max(axis=0)
    margin = np.where(high > low, 0.1 * (high - low), 1.0)
    return np.stack([low - margin, high + margin], axis=1)


def _height(energy: Callable[[Array], Array], grid: np.ndarray, like: Array) -> np.ndarray:
    """Return energies above the lowest on a grid of shape (side, side, 2)."""
    xp = array_namespace(like)
    if not xp.isdtype(like.dtype, "real floating"):
        raise ValueError(f"Expected draws of real numbers, got {like.dtype}.")
    points = xp.asarray(grid.reshape(-1, 2), dtype=like.dtype, device=device(like))
    energies = to_numpy(energy(points))
    if energies.shape != points.shape[:1]:
        shapes = f"{points.shape} to {points.shape[:1]}"
        raise ValueError(f"Expected the energy to map {shapes}, got {energies.shape}.")
    # Infinite energy is off the scale; NaN leaves a hole.
    return np.nan_to_num(energies - finite(energies).min(), nan=np.nan).reshape(grid.shape[:-1])


def _draw_paths(ax: "Axes", chains: np.ndarray) -> None:
    for chain, color in zip(chains, CHAIN_COLORS, strict=False):
        ax.plot(*chain.T, color=color, lw=0.9, alpha=0.8)
        for position, marker in ((chain[0], "o"), (chain[-1], "s")):
            ax.plot(*position, marker, color=color, mec="black", ms=7, zorder=3)


def _element(log_weights: Array, element: tuple[int, ...]) -> np.ndarray:
    array = to_numpy(log_weights)
    sizes = array.shape[1:]
    is_inside = all(-n <= i < n for i, n in zip(element, sizes, strict=False))
    if len(sizes) != len(element) or not is_inside:
        raise ValueError(f"Expected `element` to be an index of {sizes}, got {element}.")
    return array[(slice(None), *element)]


def _draw_weights(ax: "Axes", samples: dict[str, np.ndarray], marks: dict[str, float]) -> None:
    known = {name: value for name, value in marks.items() if np.isfinite(value)}
    bins = bins_around(*samples.values(), *np.reshape(list(known.values()), (-1, 1)))
    for name, sample in samples.items():
        draw_histogram(ax, sample, bins, name, *_STYLES[name])
    colors = {"lower": BLUE, "estimate": "black", "upper": VERMILLION}
    for name, value in known.items():
        line = "-" if name == "estimate" else ":"
        ax.axvline(value, color=colors[name], ls=line, lw=2, label=name)
    ax.set(xlabel="log-weight (nats)", ylabel="density (1/nat)")


def _draw_sorted(ax: "Axes", samples: dict[str, np.ndarray]) -> None:
    for name, sample in samples.items():
        signed = sample if name == "forward" else -sample
        weights = np.exp(signed - finite(signed).max())
        ranked = np.sort(weights)[::-1] / weights.sum()
        color, linestyle = _STYLES[name]
        ax.plot(1 + np.arange(len(ranked)), ranked, color=color, ls=linestyle, label=name)
    ax.axhline(1 / len(samples["forward"]), color="black", ls=":", label="all equal")
    ax.set(xlabel="rank", ylabel="normalized weight", xscale="log", yscale="log")
