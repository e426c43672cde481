"""What weights say about a normalizing constant, and how far it can be trusted."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from pyro_ebm.core.numerics import log_mean_exp, logsumexp

__all__ = [
    "LogNormalizer",
    "bracket",
    "check_log_weights",
    "describe_doubts",
    "describe_stuck_draws",
    "summarize_log_weights",
]

# Fewer effective samples than this say nothing about their own error.
_FEW = 10.0
# A wider bracket, in nats, is worth a warning: Z is then known to within a factor of e at best.
_WIDE = 1.0
# Bounds are moved outward by so many standard errors.
_MARGIN = 2.0
# Halvings that find a zero between any two log-weights to a millionth of a nat.
_NUM_HALVINGS = 40
# Chains that accept less are as good as unmoved after any affordable number of moves.
_STUCK = 0.02


class LogNormalizer(NamedTuple):
    r"""Estimate and bracket of :math:`\log Z = \log \int e^{-E(x)} p_0(x)\,dx`.

    A base counts as normalized. Every number has the shape ``(*batch,)`` of the base. What is
    guaranteed depends on the method, see :func:`bracket` for ``"importance"`` and ``"annealed"``.

    Attributes:
        estimate: Best guess of :math:`\log Z`.
        lower: Lower end of the bracket.
        upper: Upper end; plus infinity where nothing bounds it.
        standard_error: That of ``estimate``; plus infinity where it cannot be told.
        effective_sample_size: Kish's :math:`(\sum w)^2 / \sum w^2` of the weights, of the forward
            or the reverse ones, whichever is smaller; infinity for ``"grid"``.
        log_weights: :math:`\log w_k`, shape ``(num_samples, *batch)``; None for ``"grid"``. The
            mean of :math:`w_k` is unbiased for :math:`Z`.
        reverse_log_weights: Of paths that start at draws of the distribution, shape
            ``(num_draws, *batch)``, with the same sign: the mean of :math:`1 / w_k` is unbiased
            for :math:`1 / Z`. None where there are none.
    """

    estimate: Any
    lower: Any
    upper: Any
    standard_error: Any
    effective_sample_size: Any
    log_weights: Any
    reverse_log_weights: Any


def summarize_log_weights(log_weights: Any) -> LogNormalizer:
    r"""Log of the mean weight with its standard error and effective sample size.

    .. math::
        \log \hat Z = \log \frac1K \sum_k w_k, \qquad
        \mathrm{se} = \sqrt{\frac1{\mathrm{ESS}} - \frac1K}

    The standard error is that of :math:`\hat Z` divided by :math:`\hat Z`. ``lower`` is two of
    them below the estimate, ``upper`` is infinite.

    Args:
        log_weights: :math:`\log w_k`, shape ``(K, *batch)``.

    Returns:
        Record of arrays of shape ``(*batch,)``.

    References:
        | Annealed importance sampling (Neal, 2001)
    """
    xp = array_namespace(log_weights)
    num_weights = log_weights.shape[0]
    estimate = log_mean_exp(log_weights)
    log_size = 2.0 * logsumexp(log_weights) - logsumexp(2.0 * log_weights)
    effective_sample_size = xp.exp(log_size)
    # Rounding may leave 1/ESS - 1/K a hair below zero when all weights are equal.
    variance = 1.0 / effective_sample_size - 1.0 / num_weights
    error = xp.sqrt(xp.where(variance > 0, variance, xp.zeros_like(variance)))
    upper = xp.full_like(estimate, math.inf)
    lower = estimate - _MARGIN * error
    return LogNormalizer(estimate, lower, upper, error, effective_sample_size, log_weights, None)


def bracket(
    log_weights: Any, reverse_log_weights: Any = None, *, own_draws: bool = False
) -> LogNormalizer:
    r"""Bracket on :math:`\log Z` from weights of paths there and, where there are some, back.

    .. math::
        \text{lower} = \log \tfrac1K \textstyle\sum_k w_k - 2\,\mathrm{se}, \qquad
        \text{upper} = -\log \tfrac1M \textstyle\sum_m \tfrac1{w_m} + 2\,\mathrm{se}

    *Lower.* The mean weight is unbiased for :math:`Z`, whatever kernel and schedule; so its
    logarithm is low on average, and above :math:`\log Z + a` with a probability of at most
    :math:`e^{-a}` (Markov's inequality). Bad weights make it too low, hardly ever too high.

    *Upper.* The mirror image, if the reverse paths started at exact independent draws of the
    distribution: :math:`1 / Z` is estimated without bias, so ``upper`` is below
    :math:`\log Z - a` with a probability of at most :math:`e^{-a}`. It is only as good as these
    draws: they cannot tell of a mode that none of them is in. Two standard errors make both ends
    good for about 97 runs in 100 each where there are many effective samples.

    *Own draws* are the ends of the forward paths, resampled by weight and moved. They inherit the
    error of the weights, so that the standard errors of both directions add up in ``upper`` and
    in the estimate's. Where these weights are worth fewer than 10 equal ones, what they choose
    are no draws of the distribution: ``upper`` is infinite.

    *Estimate.* With a finite ``upper``, Bennett's acceptance ratio, the estimate of least
    variance from paths both ways, :math:`\log Z` such that

    .. math::
        \sum_k \sigma(\log w_k - c) = \sum_m \sigma(c - \log w_m), \qquad
        c = \log Z + \log (K / M)

    Else the log of the mean weight. The bracket is never narrower than two of the estimate's
    standard errors each way. Where fewer than 10 samples contribute to it, no error can be told
    from them: ``standard_error`` is then half of the bracket's width.

    Args:
        log_weights: :math:`\log w_k`, shape ``(K, *batch)``.
        reverse_log_weights: :math:`\log w_m`, shape ``(M, *batch)``, or None.
        own_draws: Whether the reverse paths started at resampled ends of the forward paths.

    References:
        | Efficient estimation of free energy differences from Monte Carlo data (Bennett, 1976)
        | Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse, Ghahramani
          and Adams, 2015)
    """
    xp = array_namespace(log_weights)
    forward = summarize_log_weights(log_weights)
    few = forward.effective_sample_size < _FEW
    never = xp.full_like(forward.estimate, math.inf)
    if reverse_log_weights is None:
        return forward._replace(standard_error=xp.where(few, never, forward.standard_error))
    reverse = summarize_log_weights(-reverse_log_weights)
    ratio, there, back = _acceptance_ratio(log_weights, reverse_log_weights)
    if own_draws:
        error = there.standard_error + back.standard_error
        reverse_error = reverse.standard_error + forward.standard_error
    else:
        error = xp.sqrt(there.standard_error**2 + back.standard_error**2)
        reverse_error = reverse.standard_error
    lower = xp.minimum(forward.lower, ratio - _MARGIN * error)
    upper = xp.maximum(-reverse.estimate + _MARGIN * reverse_error, ratio + _MARGIN * error)
    overlap = xp.minimum(there.effective_sample_size, back.effective_sample_size)
    error = xp.where(overlap < _FEW, xp.maximum(error, 0.5 * (upper - lower)), error)
    unknown = few if own_draws else xp.zeros_like(few)
    return LogNormalizer(
        xp.where(unknown, forward.estimate, ratio),
        xp.where(unknown, forward.lower, lower),
        xp.where(unknown, never, upper),
        xp.where(unknown, never, error),
        xp.minimum(forward.effective_sample_size, reverse.effective_sample_size),
        log_weights,
        reverse_log_weights,
    )


def check_log_weights(distribution: Any, log_weights: Any, source: str) -> None:
    """Raise unless energies were numbers on all paths that start at ``source``, some finite."""
    xp = array_namespace(log_weights)
    num_paths = math.prod(log_weights.shape)
    num_bad = int(xp.sum(xp.isnan(log_weights) | (log_weights == math.inf)))
    if num_bad:
        raise ValueError(
            f"Expected the energy of {distribution} and its base to give numbers at {source}, got "
            f"NaN or minus infinity on {num_bad} of {num_paths} paths."
        )
    if not bool(xp.all(xp.any(log_weights > -math.inf, axis=0))):
        raise ValueError(
            f"Expected the energy of {distribution} to be finite at some of {source}, got "
            f"infinity on all of {log_weights.shape[0]} paths."
        )


def describe_doubts(distribution: Any, result: LogNormalizer) -> Iterator[str]:
    """What a user should know of a result before relying on it, a sentence each."""
    xp = array_namespace(result.estimate)
    size, width = float(xp.min(result.effective_sample_size)), result.upper - result.lower
    finite_width = xp.where(width < math.inf, width, xp.zeros_like(width))
    if size < _FEW:
        yield (
            f"The {result.log_weights.shape[0]} weights for log Z of {distribution} are worth "
            f"{size:.1f} equal ones, too few to rely on: it is estimated at "
            f"{_shown(result.estimate)}, with a bracket from {_shown(result.lower)} to "
            f"{_shown(result.upper)}. Take more temperatures or samples, or a better sampler."
        )
    if bool(xp.any(finite_width > _WIDE)):
        advice = (
            "The grid is too coarse for it: use method 'annealed'"
            if result.log_weights is None
            else "Take more temperatures or samples, or a better sampler"
        )
        yield (
            f"log Z of {distribution} is only known to lie between {_shown(result.lower)} and "
            f"{_shown(result.upper)}, up to {float(xp.max(finite_width)):.2f} nats apart. {advice}."
        )


def describe_stuck_draws(distribution: Any, sampler: Any, acceptance: Any) -> Iterator[str]:
    """Say so if the chains that make draws of the distribution hardly ever moved.

    Args:
        distribution: What they walk on.
        sampler: Their kernel.
        acceptance: Mean acceptance rate, shape ``(*batch,)``.
    """
    rate = float(array_namespace(acceptance).min(acceptance))
    if rate < _STUCK:
        yield (
            f"{sampler} accepted {rate:.1%} of the moves that make draws of {distribution}: the "
            "upper end of the bracket is no better than the weights of the forward paths. Lower "
            "its `step_size`, or give it a `target_acceptance`."
        )


def _shown(x: Any) -> str:
    return f"{float(x):.2f}" if x.ndim == 0 else "[" + ", ".join(_shown(part) for part in x) + "]"


def _acceptance_ratio(forward: Any, reverse: Any) -> tuple[Any, LogNormalizer, LogNormalizer]:
    """Bennett's estimate, and what each direction contributes to it."""
    xp = array_namespace(forward)
    shift = math.log(forward.shape[0] / reverse.shape[0])
    low = xp.minimum(xp.min(forward, axis=0), xp.min(reverse, axis=0)) - abs(shift)
    high = xp.maximum(xp.max(forward, axis=0), xp.max(reverse, axis=0)) + abs(shift)
    # Dead paths weigh nothing, and the search must start at a number.
    low = xp.where(low > -math.inf, low, xp.min(reverse, axis=0) - 100.0)
    for _ in range(_NUM_HALVINGS):
        middle = 0.5 * (low + high)
        there, back = _log_sigmoid(forward - middle), _log_sigmoid(middle - reverse)
        below = logsumexp(there) > logsumexp(back)
        low, high = xp.where(below, middle, low), xp.where(below, high, middle)
    there = summarize_log_weights(_log_sigmoid(forward - low))
    back = summarize_log_weights(_log_sigmoid(low - reverse))
    return low - shift, there, back


def _log_sigmoid(x: Any) -> Any:
    xp = array_namespace(x)
    return -xp.logaddexp(xp.zeros_like(x), -x)
