"""Check of a declared constant: the spread of log Z between conditionals of a joint energy."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.distributions.joint import check_given
from pyro_ebm.core.evidence.log_normalizer import FEW

# Standard deviations that a mean may move by, and nats that log Z may vary by.
_SUSPICIOUS, _WRONG = 0.1, 0.5


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
    how many of its standard deviations the mean of anything moves by. With fewer than 10 effective
    samples nothing is known, and it warns of that.

    Args:
        num_draws: Draws of prior and of posterior, the latter evenly spaced among those given.
        num_samples: Draws of the base.
        num_observations: :math:`n`, independent values observed for each :math:`\theta`.

    Raises:
        ValueError: If a mean moves by more than 0.5 standard deviations, :math:`n \log Z` of one
            group varies by more than 0.5 nats, or the prior or the base cannot be sampled.
    """

    num_draws: int = 100
    num_samples: int = 1000
    num_observations: int = 1

    def __post_init__(self) -> None:
        check_positive_integer("num_draws", self.num_draws, minimum=2)
        check_positive_integer("num_samples", self.num_samples, minimum=2)
        check_positive_integer("num_observations", self.num_observations)


class LogNormalizers(NamedTuple):
    r"""Log-normalizers :math:`n \log Z`, shape ``(num_draws, *groups)``, and their worst sample."""

    values: Any
    effective_sample_size: float

    @property
    def totals(self) -> Any:
        """Sums over groups, shape ``(num_draws,)``."""
        xp = array_namespace(self.values)
        return xp.sum(xp.reshape(self.values, (self.values.shape[0], -1)), axis=1)

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
        num_samples: Draws that each log-normalizer is estimated from.
    """

    prior: LogNormalizers = field(repr=False)
    posterior: LogNormalizers = field(repr=False)
    shift: Mapping[str, Any]
    num_samples: int

    @property
    def largest_shift(self) -> float:
        """Largest standardized move of a posterior mean."""
        return max(float(array_namespace(x).max(x)) for x in self.shift.values())

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
        return (
            f"spread of log Z {self.posterior.spread:.3f} nats over the posterior, {over_prior}; "
            f"a posterior mean moves by {self.largest_shift:.3f} standard deviations; {sizes}"
        )


def check_spread(
    joint: Any,
    draws: Mapping[str, Any],
    settings: ConditionalSettings,
    prior: Callable[[], Mapping[str, Any]],
    estimate: Callable[[Mapping[str, Any]], tuple[Any, Any]],
) -> ConditionalCheck:
    """Check a joint energy at draws of a posterior.

    Args:
        joint: Energy on a ``Joint`` base.
        draws: Draws by part, shapes ``(num_draws, *groups, *event)``.
        settings: Effort.
        prior: Function that draws ``num_draws`` values of all parts.
        estimate: Function of draws that gives log-normalizers and effective sample sizes, shapes
            ``(num_draws, *groups)``.

    Raises:
        ValueError: If draws do not fit, or log Z varies so much that the posterior is wrong.
    """
    _check_draws(joint, draws)
    try:
        of_prior = {name: x for name, x in prior().items() if name in draws}
    except NotImplementedError as error:
        raise ValueError(f"Expected parts with `sample`, got {joint.base}.") from error
    kept = {name: _thin(x, settings.num_draws) for name, x in draws.items()}
    log_z, sizes = estimate(kept)
    posterior = _summarize(settings.num_observations * log_z, sizes)
    result = ConditionalCheck(
        _summarize(*estimate(of_prior)),
        posterior,
        {name: _shift(x, posterior.totals) for name, x in kept.items()},
        settings.num_samples,
    )
    worst = max(result.largest_shift, result.posterior.largest_spread)
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
        remedy = "Rule out chance by more samples; then train for longer, or with nearer pairs."
        yield f"{result}. {remedy}"


def _check_draws(joint: Any, draws: Mapping[str, Any]) -> None:
    check_given(joint, draws)
    if tuple(joint.batch_shape):
        raise ValueError(f"Expected one joint law, got batch shape {tuple(joint.batch_shape)}.")
    shapes = {name: joint.base._batch_shape_of(name, x) for name, x in draws.items()}
    numbers = {shape[:1] for shape in shapes.values()}
    if len(numbers) != 1 or min(numbers) < (2,):
        raise ValueError(f"Expected draws of shape (num_draws, ...), two or more, got {shapes}.")


def _thin(x: Any, number: int) -> Any:
    return x[:: -(-x.shape[0] // number)]


def _summarize(log_z: Any, sizes: Any) -> LogNormalizers:
    return LogNormalizers(log_z, float(array_namespace(sizes).min(sizes)))


def _shift(draws: Any, log_z: Any) -> Any:
    """Standardized move of each number's mean where draws are weighed by 1/Z."""
    xp = array_namespace(draws)
    weights = xp.exp(xp.min(log_z) - log_z)
    weights = xp.reshape(weights / xp.sum(weights), (-1, *(1,) * (draws.ndim - 1)))
    centered = draws - xp.mean(draws, axis=0)
    scale = xp.std(draws, axis=0)
    moved = xp.abs(xp.sum(weights * centered, axis=0))
    return xp.where(scale > 0, moved / xp.where(scale > 0, scale, xp.ones_like(scale)), 0 * scale)


def number_of_group_dims(joint: Any, given: Mapping[str, Any]) -> int:
    """Return how many dimensions there are between draws and events of what is given."""
    shapes = (joint.base._batch_shape_of(name, x) for name, x in given.items())
    return max(map(len, shapes)) - 1
