"""What importance weights say about a normalising constant."""

from typing import Any, NamedTuple

from array_api_compat import array_namespace

from pyro_ebm.core.numerics import log_mean_exp, logsumexp

__all__ = ["LogNormalizer", "summarize_log_weights"]


class LogNormalizer(NamedTuple):
    r"""Estimate of :math:`\log Z = \log \int e^{-E(x)} p_0(x)\,dx` (a base counts as normalised).

    Attributes:
        estimate: Logarithm of the mean weight. Unbiased for :math:`Z`, so low on average for
            :math:`\log Z`: a stochastic lower bound.
        standard_error: Standard error of ``estimate`` (delta method; trust it while
            ``effective_sample_size`` is large).
        effective_sample_size: Kish's :math:`(\sum w)^2 / \sum w^2`.
    """

    estimate: Any
    standard_error: Any
    effective_sample_size: Any


def summarize_log_weights(log_weights: Any) -> LogNormalizer:
    r"""Log of the mean weight with its standard error and effective sample size.

    .. math::
        \log \hat Z = \log \frac1K \sum_k w_k, \qquad
        \mathrm{se} = \sqrt{\frac1{\mathrm{ESS}} - \frac1K}

    The standard error is that of :math:`\hat Z` divided by :math:`\hat Z`.

    Args:
        log_weights: :math:`\log w_k`, shape ``(K, *batch)``.

    Returns:
        Record of arrays of shape ``(*batch,)``.

    References:
        | Annealed importance sampling (Neal, 2001)
    """
    xp = array_namespace(log_weights)
    num_weights = log_weights.shape[0]
    log_size = 2.0 * logsumexp(log_weights) - logsumexp(2.0 * log_weights)
    effective_sample_size = xp.exp(log_size)
    # Rounding may leave 1/ESS - 1/K a hair below zero when all weights are equal.
    variance = 1.0 / effective_sample_size - 1.0 / num_weights
    variance = xp.where(variance > 0, variance, xp.zeros_like(variance))
    return LogNormalizer(log_mean_exp(log_weights), xp.sqrt(variance), effective_sample_size)
