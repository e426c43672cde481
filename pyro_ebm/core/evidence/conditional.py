"""Check of a declared constant: the spread of log Z between conditionals of a joint energy."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.distributions.joint import check_given
from pyro_ebm.core.evidence.log_normalizer import FEW
from pyro_ebm.core.numerics import (
    effective_sample_size,
    expand_right,
    log_mean_exp,
    logsumexp,
)

# Standard deviations that a mean may move by, and nats that log Z may vary by.
_SUSPICIOUS, _WRONG = 0.1, 0.5
# Parts of the draws of the base, left out one at a time for the standard error of a move.
_NUM_PARTS = 10


@dataclass(frozen=True, kw_only=True)
class ConditionalSettings:
    r"""Effort of a check that a joint energy has one log-normalizer for all given parts.

    ``joint.conditional(theta=theta)`` declares that :math:`\log Z(\theta)` is constant. This checks
    it, by importance sampling from the base of the other parts, the same draws for every
    :math:`\theta`, over draws of the prior (the base of the given parts) and of a posterior. Where
    :math:`\log Z` varies the posterior is wrong by the factor :math:`1 / Z(\theta)^n`; its draws,
    reweighted by it, show how far the mean of each number in :math:`\theta` would move.

    It warns if a mean moves by more than 0.1 posterior standard deviations, or if the standard
    deviation of :math:`n \log Z`, summed over groups, is above 0.1 nats: to first order it bounds
    how many of its standard deviations the mean of anything moves by. The standard error of a move,
    by a jackknife over tenths of the draws of the base, decides between chance and a wrong
    posterior. With fewer than 10 effective samples nothing is known, and it warns of that.

    Args:
        num_draws: Draws of prior and of posterior, the latter evenly spaced among those given.
        num_samples: Draws of the base.
        num_observations: :math:`n`, independent values observed for each :math:`\theta`.

    Raises:
        ValueError: If a mean moves by more than 0.5 standard deviations beyond two standard errors,
            :math:`n \log Z` of one group varies by more than 0.5 nats, or the prior or the base
            cannot be sampled.
    """

    num_draws: int = 100
    num_samples: int = 1000
    num_observations: int = 1

    def __post_init__(self) -> None:
        check_positive_integer("num_draws", self.num_draws, minimum=2)
        check_positive_integer("num_samples", self.num_samples, minimum=2)
        check_positive_integer("num_observations", self.num_observations)


class Estimates(NamedTuple):
    """Log-normalizers of conditionals.

    Attributes:
        log_z: Shape ``(num_draws, *groups)``.
        without: Those without one part of the draws, shape ``(num_draws, num_parts, *groups)``.
        sizes: Effective sample sizes, shape ``(num_draws, *groups)``.
    """

    log_z: Any
    without: Any
    sizes: Any


def estimate(log_weights: Any) -> Estimates:
    """Estimate the log-normalizer of one conditional, from shape ``(num_samples, *groups)``."""
    xp, number = array_namespace(log_weights), min(_NUM_PARTS, log_weights.shape[0])
    # Every tenth: draws in one dimension are in strata.
    parts = [logsumexp(log_weights[index::number]) for index in range(number)]
    without = [logsumexp(xp.stack(parts[:i] + parts[i + 1 :])) for i in range(number)]
    return Estimates(
        log_mean_exp(log_weights), xp.stack(without), effective_sample_size(log_weights)
    )


class LogNormalizers(NamedTuple):
    r"""Log-normalizers :math:`n \log Z`, shape ``(num_draws, *groups)``, and their worst sample."""

    values: Any
    effective_sample_size: float

    @property
    def totals(self) -> Any:
        """Sums over groups, shape ``(num_draws,)``."""
        return array_namespace(self.values).sum(_flat(self.values, 1), axis=1)

    @property
    def spread(self) -> float:
        """Standard deviation of the sum over groups, in nats."""
        return float(array_namespace(self.values).std(self.totals))

    @property
    def largest_spread(self) -> float:
        """Largest standard deviation of one group, in nats."""
        xp = array_namespace(self.values)
        return float(xp.max(xp.std(self.values, axis=0)))


@dataclass(frozen=True, eq=False)
class ConditionalCheck:
    r"""Spread of :math:`\log Z` over what a joint energy is conditioned on.

    Attributes:
        prior: Log-normalizers of draws of the prior.
        posterior: Those of draws of the posterior, times :math:`n`.
        shift: Standard deviations of the posterior that each number's mean would move by, by part.
        standard_error: Standard errors of these moves, by part.
        num_samples: Draws that each log-normalizer is estimated from.
    """

    prior: LogNormalizers = field(repr=False)
    posterior: LogNormalizers = field(repr=False)
    shift: Mapping[str, Any]
    standard_error: Mapping[str, Any] = field(repr=False)
    num_samples: int

    @property
    def largest_shift(self) -> float:
        """Largest standardized move of a posterior mean."""
        return max(self._moves)[0]

    @property
    def certain_shift(self) -> float:
        """Largest standardized move of a posterior mean, less two standard errors."""
        return max(0.0, *(move - 2 * error for move, error in self._moves))

    @property
    def _moves(self) -> list[tuple[float, float]]:
        """Moves of all numbers, with their standard errors."""
        pairs = ((x, self.standard_error[name]) for name, x in self.shift.items())
        flat = ((_flat(x, 0).tolist(), _flat(error, 0).tolist()) for x, error in pairs)
        return [pair for moves, errors in flat for pair in zip(moves, errors, strict=True)]

    @property
    def is_known(self) -> bool:
        """Whether there are enough effective samples for each draw of the posterior."""
        return self.posterior.effective_sample_size >= FEW

    def __str__(self) -> str:
        sizes = f"effective samples {self.posterior.effective_sample_size:.0f}"
        sizes += f" or more of {self.num_samples}"
        if not self.is_known:
            return f"spread of log Z over the posterior unknown: {sizes}"
        over_prior = f"{self.prior.spread:.3f} over the prior"
        if self.prior.effective_sample_size < FEW:
            over_prior = "unknown over the prior"
        move, error = max(self._moves)
        return (
            f"spread of log Z {self.posterior.spread:.3f} nats over the posterior, {over_prior}; "
            f"a posterior mean moves by {move:.3f} standard deviations (standard error "
            f"{error:.3f}); {sizes}"
        )


def check_spread(
    joint: Any,
    draws: Mapping[str, Any],
    settings: ConditionalSettings,
    prior: Callable[[], Mapping[str, Any]],
    estimate: Callable[[Mapping[str, Any]], Estimates],
) -> ConditionalCheck:
    """Check a joint energy at draws of a posterior.

    Args:
        joint: Energy on a ``Joint`` base.
        draws: Draws by part, shapes ``(num_draws, *groups, *event)``.
        settings: Effort.
        prior: Function that draws ``num_draws`` values of all parts.
        estimate: Function of draws that gives their log-normalizers.

    Raises:
        ValueError: If draws do not fit, or log Z varies so much that the posterior is wrong.
    """
    _check_draws(joint, draws)
    try:
        of_prior = {name: x for name, x in prior().items() if name in draws}
    except NotImplementedError as error:
        raise ValueError(f"Expected parts with `sample`, got {joint.base}.") from error
    kept = {name: x[:: -(-x.shape[0] // settings.num_draws)] for name, x in draws.items()}
    found = estimate(kept)
    _check_numbers(draws, found.log_z)
    result = _compare(kept, found, _summarize(estimate(of_prior)), settings)
    worst = max(result.certain_shift, result.posterior.largest_spread)
    if result.is_known and not worst <= _WRONG:
        raise ValueError(
            f"Expected log Z to be the same for all values of {[*draws]}, got a {result}: the "
            "posterior is wrong. Train on pairs, joint = EnergyBased(energy, Joint(theta=prior, "
            "x=base)), with parameters from the prior and data from the simulator; if it was, for "
            "longer."
        )
    return result


def describe_doubts(result: ConditionalCheck) -> Iterator[str]:
    """Yield a warning if log Z varies, or too little is known about it."""
    if not result.is_known:
        yield f"{result}. Use more samples, or a base that is closer to the data."
    elif result.posterior.spread > _SUSPICIOUS or result.largest_shift > _SUSPICIOUS:
        # With few effective samples the standard errors are rough themselves.
        is_rough = result.posterior.effective_sample_size < 3 * FEW
        is_chance = result.certain_shift == 0.0 or is_rough
        remedy = "It may be chance: use more samples." if is_chance else "Train for longer."
        yield f"{result}. {remedy}"


def _check_draws(joint: Any, draws: Mapping[str, Any]) -> None:
    check_given(joint, draws)
    if tuple(joint.batch_shape):
        raise ValueError(
            f"Expected one joint distribution, got batch shape {tuple(joint.batch_shape)}."
        )
    shapes = {name: joint.base._batch_shape_of(name, x) for name, x in draws.items()}
    numbers = {shape[:1] for shape in shapes.values()}
    if len(numbers) != 1 or min(numbers) < (2,):
        raise ValueError(f"Expected draws of shape (num_draws, ...), two or more, got {shapes}.")


def _check_numbers(names: Iterable[str], log_z: Any) -> None:
    xp = array_namespace(log_z)
    num_bad = int(xp.sum(xp.astype(~xp.isfinite(log_z), xp.int32)))
    if num_bad:
        raise ValueError(
            f"Expected draws of {[*names]} with finite log Z, got NaN or infinity at {num_bad} of "
            f"{math.prod(log_z.shape)}: a draw is no number, or the energy there is none or "
            "infinite."
        )


def _compare(
    draws: Mapping[str, Any],
    found: Estimates,
    of_prior: LogNormalizers,
    settings: ConditionalSettings,
) -> ConditionalCheck:
    """Summarize draws of a posterior, with the moves of their means and a jackknife of these."""
    xp, number = array_namespace(found.log_z), settings.num_observations
    posterior = _summarize(found, number)
    without = number * xp.sum(_flat(found.without, 2), axis=2)
    shifts, errors = {}, {}
    for name, x in draws.items():
        shifts[name] = xp.abs(_shift(x, posterior.totals))
        moves = xp.stack([_shift(x, without[:, i]) for i in range(without.shape[1])])
        errors[name] = xp.std(moves, axis=0) * (without.shape[1] - 1) ** 0.5
    return ConditionalCheck(of_prior, posterior, shifts, errors, settings.num_samples)


def _summarize(found: Estimates, number: int = 1) -> LogNormalizers:
    xp = array_namespace(found.sizes)
    return LogNormalizers(number * found.log_z, float(xp.min(found.sizes)))


def _flat(x: Any, num_dims: int) -> Any:
    """Join all dimensions after the first few."""
    return array_namespace(x).reshape(x, (*x.shape[:num_dims], -1))


def _shift(draws: Any, log_z: Any) -> Any:
    """Standardized move of each number's mean where draws are weighed by 1/Z."""
    xp = array_namespace(draws)
    weights = xp.exp(xp.min(log_z) - log_z)
    weights = expand_right(weights / xp.sum(weights), draws.ndim)
    centered = draws - xp.mean(draws, axis=0)
    scale = xp.std(draws, axis=0)
    moved = xp.sum(weights * centered, axis=0)
    return xp.where(scale > 0, moved / xp.where(scale > 0, scale, xp.ones_like(scale)), 0 * scale)


def number_of_group_dims(joint: Any, given: Mapping[str, Any]) -> int:
    """Return how many dimensions there are between draws and events of what is given."""
    shapes = (joint.base._batch_shape_of(name, x) for name, x in given.items())
    return max(map(len, shapes)) - 1
