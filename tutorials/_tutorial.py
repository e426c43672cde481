"""Figures and run lengths of the tutorials.

Two environment variables change how they run as scripts, where no display is needed:
`PYRO_EBM_FAST=1` runs a few steps of everything, to see that it works, and `PYRO_EBM_FIGURES` names
a folder to save figures in.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np

if "MPLBACKEND" not in os.environ:  # Jupyter sets it.
    matplotlib.use("agg")

from matplotlib import pyplot as plt

from pyro_ebm._colors import CHAIN_COLORS

FAST = os.environ.get("PYRO_EBM_FAST") == "1"

VERMILLION, BLUE, GREEN, ORANGE, PINK, SKY = CHAIN_COLORS

plt.rcParams.update(
    {
        "axes.prop_cycle": plt.cycler(color=[BLUE, VERMILLION, GREEN, ORANGE, PINK, SKY]),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.constrained_layout.use": True,
        "figure.dpi": 110,
        "font.size": 11,
        "image.cmap": "Blues",
        "legend.frameon": False,
    }
)

# The last ArviZ 0.x announces ArviZ 1.x on its first import of each day.
warnings.filterwarnings("ignore", r"\s*ArviZ is undergoing", FutureWarning)


def steps(full: int, *, fast: int) -> int:
    """Return the number of steps, draws or chains of a full or of a fast run."""
    return fast if FAST else full


def show(name: str) -> None:
    """Show the current figure; as a script, save it as ``name.png`` if there is a folder for it."""
    if folder := os.environ.get("PYRO_EBM_FIGURES"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        plt.savefig(Path(folder) / f"{name}.png")
    if matplotlib.get_backend().lower() == "agg":
        plt.close()
    else:
        plt.show()


@contextmanager
def printed_warnings() -> Iterator[None]:
    """Print the warnings of a few lines of code, in which they are part of the lesson."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        print(f"Warning: {warning.message}")


def plane(limit: float, size: int = 100) -> np.ndarray:
    """Return midpoints of the cells of a square around zero, float32 of shape ``(size**2, 2)``."""
    edge = 2 * limit / size
    line = -limit + edge * (np.arange(size) + 0.5)
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2).astype(np.float32)


def plot_density(ax: plt.Axes, density: np.ndarray, limit: float, title: str) -> None:
    """Plot a density at the points of ``plane(limit)``, shape ``(size**2,)``."""
    size = round(len(density) ** 0.5)
    square = (-limit, limit, -limit, limit)
    ax.imshow(np.asarray(density).reshape(size, size), origin="lower", extent=square)
    dress(ax, limit, title)


def plot_points(ax: plt.Axes, points: np.ndarray, limit: float, title: str, **style: str) -> None:
    """Plot points of shape ``(N, 2)`` on the square of ``plane(limit)``."""
    ax.plot(*np.asarray(points).T, "o", ms=2, mew=0, alpha=0.5, **style)
    dress(ax, limit, title)


def dress(ax: plt.Axes, limit: float, title: str) -> None:
    """Give axes the square of ``plane(limit)``, a title and no ticks."""
    ax.set(title=title, xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    ax.set(xticks=[], yticks=[])
