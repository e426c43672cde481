"""Histograms of samples with outliers."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUM_BINS = 40


def _bulk(sample: np.ndarray) -> np.ndarray:
    """Return the draws within three interquartile ranges, three times to exclude stray chains."""
    bulk = finite(sample).astype(float)
    for _ in range(3):
        # A quarter of all draws may be stray: "lower" keeps the quartile among the others.
        first, third = np.quantile(bulk, [0.25, 0.75], method="lower")
        reach = 3 * (third - first)
        if reach > 0:
            bulk = bulk[(bulk >= first - reach) & (bulk <= third + reach)]
    return bulk


def bins_around(*samples: np.ndarray) -> np.ndarray:
    """Return edges of bins over the bulk of all samples."""
    bulk = np.concatenate([_bulk(sample) for sample in samples])
    low, high = bulk.min(), bulk.max()
    margin = 0.5 * (high == low)
    return np.linspace(low - margin, high + margin, _NUM_BINS + 1)


def finite(sample: np.ndarray) -> np.ndarray:
    """Return the finite numbers; raise if there are none."""
    numbers = sample[np.isfinite(sample)]
    if not len(numbers):
        raise ValueError("Expected finite energies or log-weights, got none.")
    return numbers


def density(sample: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Return heights of a histogram whose area is the share of the sample on the axis."""
    counts, _ = np.histogram(sample[np.isfinite(sample)], bins)
    return counts / (sample.size * np.diff(bins))


def draw_histogram(
    ax: "Axes", sample: np.ndarray, bins: np.ndarray, label: str, color: str, linestyle: str = "-"
) -> None:
    """Draw a histogram, and the share of it that is off the axis into the legend."""
    heights = density(sample, bins)
    outside = 1 - (heights * np.diff(bins)).sum()
    if outside > 0.01:
        label += f" ({outside:.0%} off the axis)"
    ax.stairs(heights, bins, fill=True, color=color, alpha=0.2)
    ax.stairs(heights, bins, color=color, lw=1.5, ls=linestyle, label=label)
