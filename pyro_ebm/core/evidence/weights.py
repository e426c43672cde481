r"""Estimates and bounds of a normalizing constant from log-weights.

Log-weights :math:`\log w_k` have shape ``(K, *batch)``, those of reverse paths,
:math:`\log w_m`, shape ``(M, *batch)``.
"""

import math
from dataclasses import replace
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.evidence.log_normalizer import FEW, LogNormalizer
from pyro_ebm.core.numerics import (
    at_least_single,
    effective_sample_size,
    log_mean_exp,
    logsumexp,
)
from pyro_ebm.core.samplers.truncation import log_of_share

# Standard errors between a mean and its bound.
MARGIN = 2.0
# Halvings that find a zero between any two log-weights to a millionth of a nat.
_NUM_HALVINGS = 40


def summarize_log_weights(
    log_weights: Any, size: Any = None, num_weights: Any = None
) -> LogNormalizer:
    r"""Return the log of the mean weight, its standard error and its effective sample size.

    .. math::
        \log \hat Z = \log \frac1K \sum_k w_k, \qquad
        \mathrm{se} = \sqrt{\frac1{\mathrm{ESS}} - \frac1K}

    The standard error is that of :math:`\hat Z` divided by :math:`\hat Z`, infinite with one
    weight. ``lower`` is two standard errors below the estimate, ``upper`` is infinite. Where
    weights are not independent, ``size`` is their effective sample size, by families, and
    ``num_weights`` that of equal weights.

    References:
        | Annealed importance sampling (Neal, 2001)
        | Variance estimation in the particle filter (Lee and Whiteley, 2018)
    """
    xp, log_weights = array_namespace(log_weights), at_least_single(log_weights)
    num_weights = log_weights.shape[0] if num_weights is None else num_weights
    estimate = log_mean_exp(log_weights)
    size = effective_sample_size(log_weights) if size is None else size
    # Rounding may leave 1/ESS - 1/K a hair below zero when all weights are equal.
    variance = 1.0 / size - 1.0 / num_weights
    error = xp.sqrt(xp.where(variance <= 0, xp.zeros_like(variance), variance))
    if log_weights.shape[0] == 1:
        error = xp.full_like(error, math.inf)
    upper = xp.full_like(estimate, math.inf)
    lower = estimate - MARGIN * error
    return LogNormalizer(estimate, lower, upper, error, size, log_weights, None)


def bracket(
    log_weights: Any,
    reverse_log_weights: Any = None,
    *,
    own_draws: bool = False,
    sizes: tuple[Any, Any] = (None, None),
    num_starts: tuple[Any, Any] = (None, None),
    is_resampled: Any = None,
) -> LogNormalizer:
    r"""Bracket :math:`\log Z` by weights of forward paths and, where there are any, reverse paths.

    .. math::
        \text{lower} = \log \tfrac1K \textstyle\sum_k w_k - 2\,\mathrm{se}, \qquad
        \text{upper} = -\log \tfrac1M \textstyle\sum_m \tfrac1{w_m} + 2\,\mathrm{se}

    *Lower.* The mean weight is unbiased for :math:`Z`, whatever the kernel and the schedule. Its
    logarithm is therefore low on average, and exceeds :math:`\log Z + a` with a probability of at
    most :math:`e^{-a}` (Markov's inequality). Bad weights make it too low, hardly ever too high.

    *Upper.* The mirror image, if the reverse paths started at exact independent draws of the
    distribution: :math:`1 / Z` is estimated without bias, and ``upper`` is below
    :math:`\log Z - a` with a probability of at most :math:`e^{-a}`. The bound is as good as these
    draws: a mode without a draw is missing from it. With many effective samples the two standard
    errors make each end hold in about 97 of 100 runs.

    *Own draws* are the ends of the forward paths, resampled by weight and moved. They inherit the
    error of the weights: in ``upper`` and in the standard error of the estimate the errors of both
    directions add up. With an effective sample size below 10 the resampled ends are not draws of
    the distribution, and ``upper`` is infinite.

    *Estimate.* With a finite ``upper``, Bennett's acceptance ratio, the estimate of least
    variance from paths in both directions: :math:`\log Z` such that

    .. math::
        \sum_k \sigma(\log w_k - c) = \sum_m \sigma(c - \log w_m), \qquad
        c = \log Z + \log (K / M)

    Otherwise, and where paths were resampled, the log of the mean weight. The bracket always
    contains two standard errors of the estimate to either side. Where fewer than 10 effective
    samples contribute, ``standard_error`` is at least half of the width of the bracket.

    Args:
        log_weights: Of forward paths.
        reverse_log_weights: Of reverse paths.
        own_draws: Whether these start at the ends of the forward paths.
        sizes: Effective sample sizes of both, where paths were resampled.
        num_starts: Effective numbers of starts, where some are copies of others.
        is_resampled: Whether they were, shape ``(*batch,)``.

    References:
        | Efficient estimation of free energy differences from Monte Carlo data (Bennett, 1976)
        | Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse, Ghahramani
          and Adams, 2015)
    """
    xp = array_namespace(log_weights)
    forward = summarize_log_weights(log_weights, sizes[0], num_starts[0])
    few = forward.effective_sample_size < FEW
    never = xp.full_like(forward.estimate, math.inf)
    if reverse_log_weights is None:
        return replace(forward, standard_error=xp.where(few, never, forward.standard_error))
    reverse = summarize_log_weights(-reverse_log_weights, sizes[1], num_starts[1])
    both = _bracket_by_both(forward, reverse, own_draws=own_draws, is_resampled=is_resampled)
    if not own_draws:
        return both
    return replace(
        both,
        estimate=xp.where(few, forward.estimate, both.estimate),
        lower=xp.where(few, forward.lower, both.lower),
        upper=xp.where(few, never, both.upper),
        standard_error=xp.where(few, never, both.standard_error),
    )


def times_share(result: LogNormalizer, share: Any, num_draws: int) -> LogNormalizer:
    r"""Multiply a normalizing constant by a share s, estimated from N independent draws.

    Paths that start at the base inside of a support estimate :math:`Z / s`, where s is the share
    of the base's mass in the support. Its standard error, :math:`\sqrt{(1 - s) / (s N)}` on the
    scale of logarithms, enters the bracket too.
    """
    xp = array_namespace(share)
    log_share, error = log_of_share(share, num_draws)
    reverse = result.reverse_log_weights
    return replace(
        result,
        estimate=result.estimate + log_share,
        lower=result.lower + log_share - MARGIN * error,
        upper=result.upper + log_share + MARGIN * error,
        standard_error=xp.sqrt(result.standard_error**2 + error**2),
        log_weights=result.log_weights + log_share,
        reverse_log_weights=None if reverse is None else reverse + log_share,
    )


def _bracket_by_both(
    forward: LogNormalizer, reverse: LogNormalizer, *, own_draws: bool, is_resampled: Any
) -> LogNormalizer:
    xp, reverse_log_weights = array_namespace(reverse.log_weights), -reverse.log_weights
    ratio, there, back = _acceptance_ratio(forward.log_weights, reverse_log_weights)
    overlap = xp.minimum(there.effective_sample_size, back.effective_sample_size)
    if own_draws:
        error = there.standard_error + back.standard_error
        reverse_error = reverse.standard_error + forward.standard_error
    else:
        error = xp.sqrt(there.standard_error**2 + back.standard_error**2)
        reverse_error = reverse.standard_error
    if is_resampled is not None:  # The ratio needs independent paths.
        ratio = xp.where(is_resampled, forward.estimate, ratio)
        error = xp.where(is_resampled, forward.standard_error, error)
        overlap = xp.where(is_resampled, forward.effective_sample_size, overlap)
    lower = xp.minimum(forward.lower, ratio - MARGIN * error)
    upper = xp.maximum(-reverse.estimate + MARGIN * reverse_error, ratio + MARGIN * error)
    error = xp.where(overlap < FEW, xp.maximum(error, 0.5 * (upper - lower)), error)
    size = xp.minimum(forward.effective_sample_size, reverse.effective_sample_size)
    return LogNormalizer(ratio, lower, upper, error, size, forward.log_weights, reverse_log_weights)


def _acceptance_ratio(forward: Any, reverse: Any) -> tuple[Any, LogNormalizer, LogNormalizer]:
    """Return Bennett's estimate, and the summaries of what each direction contributes to it."""
    xp = array_namespace(forward)
    shift = math.log(forward.shape[0] / reverse.shape[0])
    low = xp.minimum(xp.min(forward, axis=0), xp.min(reverse, axis=0)) - abs(shift)
    high = xp.maximum(xp.max(forward, axis=0), xp.max(reverse, axis=0)) + abs(shift)
    # Dead paths have no weight, and the search must start at a number.
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
