"""Densities that can be drawn from exactly, and tests of what a Markov kernel does to the draws."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from scipy import stats

SHAPE, BEND, NUM_DIMS, CORRELATION = 2.5, 0.5, 16, 0.7

_distance = np.abs(np.subtract.outer(np.arange(NUM_DIMS), np.arange(NUM_DIMS)))
COVARIANCE = CORRELATION**_distance
CHOLESKY = np.linalg.cholesky(COVARIANCE)
PRECISION = np.linalg.inv(COVARIANCE)


@dataclass(frozen=True)
class Target:
    """A density on ``(N, dims)``.

    Attributes:
        dims: Number of coordinates.
        step_size: A leapfrog step that is about right for it.
        potential: Minus its log up to a constant, for arrays of either host.
        standardize: From draws to independent standard normal numbers, in NumPy.
        destandardize: And back.
    """

    dims: int
    step_size: float
    potential: Callable[[Any], Any]
    standardize: Callable[[np.ndarray], np.ndarray]
    destandardize: Callable[[np.ndarray], np.ndarray]

    def exact(self, num_draws, seed=0):
        noise = np.random.default_rng(seed).normal(size=(num_draws, self.dims))
        return self.destandardize(noise)

    def p_value(self, draws):
        """Kolmogorov-Smirnov test of draws that have gone through a kernel."""
        return normal_p_value(self.standardize(np.asarray(draws)))


def _gaussian(x):
    return 0.5 * (x**2).sum(-1)


def _log_gamma(x):
    return (array_namespace(x).exp(x) - SHAPE * x).sum(-1)


def _banana(x):
    first, second = x[..., 0], x[..., 1]
    return 0.5 * (first**2 + (second - BEND * (first**2 - 1)) ** 2)


def _correlated(x):
    xp = array_namespace(x)
    return 0.5 * ((x @ xp.asarray(PRECISION, dtype=x.dtype)) * x).sum(-1)


def _bend(x, sign):
    shift = BEND * (x[:, :1] ** 2 - 1)
    return np.concatenate([x[:, :1], x[:, 1:] + sign * shift], axis=1)


TARGETS = {
    "gaussian": Target(1, 1.2, _gaussian, lambda x: x, lambda u: u),
    "log-gamma": Target(
        1,
        0.9,
        _log_gamma,
        lambda x: stats.norm.ppf(stats.gamma.cdf(np.exp(x), SHAPE)),
        lambda u: np.log(stats.gamma.ppf(stats.norm.cdf(u), SHAPE)),
    ),
    "banana": Target(2, 0.7, _banana, lambda x: _bend(x, -1), lambda u: _bend(u, 1)),
    "correlated": Target(
        NUM_DIMS,
        0.45,
        _correlated,
        lambda x: np.linalg.solve(CHOLESKY, x.T).T,
        lambda u: u @ CHOLESKY.T,
    ),
}


def normal_p_value(draws):
    """Kolmogorov-Smirnov test of independent draws against the standard normal."""
    return stats.kstest(np.asarray(draws).ravel(), "norm").pvalue


def rank_p_value(start, forward, backward, seed=0):
    """Exact rank test of a reversible kernel that started at exact draws.

    Of ``L`` moves a random number is made forward and the others backward in time, which for a
    reversible kernel is the same; then the start has a uniform rank among all the states.

    Args:
        start: A statistic of exact draws, shape ``(N,)``.
        forward: The statistic after 1 to ``L`` moves from them, shape ``(L, N)``.
        backward: The same for an independent run.
        seed: Of the split, and of the order among equals (a rejected move stays).

    References:
        | Unit testing for MCMC and other Monte Carlo methods (Gandy and Scott, 2020)
    """
    rng = np.random.default_rng(seed)
    num_moves, num_draws = forward.shape
    num_forward = rng.integers(0, num_moves + 1, size=num_draws)
    taken = np.arange(num_moves)[:, None] < num_forward
    states = np.where(taken, forward, backward[::-1])
    below = (states < start).sum(0)
    ties = (states == start).sum(0)
    ranks = below + rng.integers(0, ties + 1)
    return stats.chisquare(np.bincount(ranks, minlength=num_moves + 1)).pvalue
