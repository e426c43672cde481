"""Simulation-based calibration: ranks of true parameters among draws of their posteriors."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import chi2

from pyro_ebm._arrays import to_numpy
from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.diagnostics import Chains

# Simulations that a bin of ranks should hold, and bins at most.
_IN_A_BIN, _MOST_BINS = 20, 20


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    r"""Effort of simulation-based calibration.

    Parameters are drawn from the prior, data from the simulator, and draws of the posterior given
    the data; the rank of each parameter among them is uniform if the posterior is right. Ranks that
    pile up at both ends are those of a posterior that is too narrow, in the middle of one that is
    too wide, at one end of one that is shifted.

    Give several parameters as one vector: ``Joint(mu=..., sigma=...)`` is the prior, the simulator
    applies its ``split``, and the posterior is a function of data x, which draws from
    ``joint.conditional(x=x)`` for example.

    Args:
        num_simulations: Parameters, each with data of its own.
        num_draws: Draws of each posterior, evenly spaced among those given. They must be nearly
            independent: draws of chains in a row look like a posterior that is too narrow.
        batch_size: Data sets that the posterior is asked for at once. Default: all.

    Raises:
        ValueError: If a number is out of range, the prior cannot be sampled, the posterior gives
            too few draws, draws or data are NaN, or shapes disagree.

    References:
        | Validating Bayesian inference algorithms with simulation-based calibration (Talts,
          Betancourt, Simpson, Vehtari and Gelman, 2018), https://arxiv.org/abs/1804.06788
    """

    num_simulations: int = 200
    num_draws: int = 99
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_positive_integer("num_simulations", self.num_simulations)
        check_positive_integer("num_draws", self.num_draws)
        if self.batch_size is not None:
            check_positive_integer("batch_size", self.batch_size)

    def batches(self) -> Iterator[slice]:
        """Yield the rows of each batch of simulations."""
        size = self.batch_size or self.num_simulations
        for start in range(0, self.num_simulations, size):
            yield slice(start, min(start + size, self.num_simulations))


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of true parameters among draws; ``plots.plot_ranks`` shows them.

    Attributes:
        ranks: Number of draws below the truth, from 0 to `num_draws`, shape
            `(num_simulations, *event)`; of draws that are the same, a random part.
        num_draws: Draws of each posterior.
        names: Names of the parameters, if the prior is a ``Joint``.
    """

    ranks: np.ndarray = field(repr=False)
    num_draws: int
    names: tuple[str, ...] = ()

    @property
    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Ranks in each bin, shape `(num_bins, *event)`, and how many are expected."""
        num_ranks, num_simulations = self.num_draws + 1, len(self.ranks)
        num_bins = max(2, min(_MOST_BINS, num_simulations // _IN_A_BIN, num_ranks))
        bins = self.ranks * num_bins // num_ranks
        counts = np.stack([np.sum(bins == index, axis=0) for index in range(num_bins)])
        owners = np.arange(num_ranks) * num_bins // num_ranks
        return counts, np.bincount(owners) * (num_simulations / num_ranks)

    @property
    def p_values(self) -> np.ndarray:
        """Of chi-square tests that the ranks of each number are uniform, shape `(*event,)`."""
        counts, expected = self.counts
        expected = expected.reshape(-1, *(1,) * (counts.ndim - 1))
        return chi2.sf(((counts - expected) ** 2 / expected).sum(0), len(counts) - 1)

    def __str__(self) -> str:
        return (
            f"ranks in {len(self.ranks)} simulations, among {self.num_draws} draws each: smallest "
            f"p-value {np.min(self.p_values):.3g} of {np.size(self.p_values)} tests of uniformity"
        )


def rank(
    truth: np.ndarray,
    draws: np.ndarray,
    settings: CalibrationSettings,
    names: tuple[str, ...] = (),
) -> Calibration:
    """Rank parameters, shape `(N, *event)`, among draws, shape `(num_draws, N, *event)`.

    A parameter with ties, one of codes for example, has a random place among them.
    """
    num_ties = np.sum(draws == truth, axis=0)
    places = np.random.default_rng(0).integers(num_ties, endpoint=True)
    return Calibration(np.sum(draws < truth, axis=0) + places, settings.num_draws, names)


def collect(found: Any, shape: tuple[int, ...], num_draws: int) -> np.ndarray:
    """Return evenly spaced draws of parameters of this shape, of an array or of chains.

    Raises:
        ValueError: If there are too few, or their shape is another.
    """
    draws = to_numpy(found.samples if isinstance(found, Chains) else found)
    if isinstance(found, Chains):
        draws = draws.reshape(-1, *draws.shape[2:])
    if draws.shape[1:] != tuple(shape) or len(draws) < num_draws:
        raise ValueError(
            f"Expected `posterior` to give {num_draws} draws or more, each of shape "
            f"{tuple(shape)}, got an array of shape {draws.shape}."
        )
    stride = len(draws) // num_draws
    draws = draws[stride - 1 :: stride][:num_draws]
    _check_numbers("`posterior` to give draws", draws, axis=1)
    return draws


def given_data(joint: Any, x: Any) -> Any:
    """Condition an energy on a ``Joint`` of parameter and data, in this order, on data.

    Raises:
        ValueError: If there are more parts.
    """
    names = [*getattr(joint.base, "parts", ())]
    if len(names) != 2:
        raise ValueError(
            "Expected `posterior` to be a function of data, or an energy on a Joint of a parameter "
            f"and data, got parts {names}: for several parameters give Joint(mu=..., sigma=...) as "
            "the prior, and as the posterior a function of data x that draws from "
            "joint.conditional(x=x)."
        )
    return joint.conditional(**{names[1]: x})


def check_simulated(x: Any, num_simulations: int) -> None:
    """Raise unless a simulator gives a row for each parameter."""
    shape = getattr(x, "shape", None)
    if shape is None or tuple(shape[:1]) != (num_simulations,):
        got = type(x).__name__ if shape is None else f"shape {tuple(shape)}"
        raise ValueError(
            f"Expected `simulator` to map ({num_simulations}, *event_shape) to as many rows of "
            f"data, got {got}."
        )
    _check_numbers("`simulator` to give data", to_numpy(x), axis=0)


def _check_numbers(what: str, x: np.ndarray, axis: int) -> None:
    """Raise for NaN, by the simulations along an axis: no rank among them means anything."""
    is_bad = np.isnan(x).any(tuple(i for i in range(x.ndim) if i != axis))
    if is_bad.any():
        raise ValueError(
            f"Expected {what} that are numbers, got NaN in {is_bad.sum()} of {is_bad.size} "
            "simulations."
        )
