"""Evidence of latent-variable models from log-weights and the log-normalizers of their priors."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from pyro_ebm.core.evidence.weights import summarize_log_weights

__all__ = [
    "LogMarginal",
    "describe_doubts",
    "inverse_temperatures",
    "summarize_log_marginal",
]

# A likelihood of many observations is felt at once: most temperatures belong near zero.
_POWER = 4
# Fewer effective samples than this say nothing about their own error.
_FEW = 10.0


class LogMarginal(NamedTuple):
    r"""Estimates of :math:`\log p(x) = \log \int p(x, z)\,dz`, one for each data point.

    Attributes:
        estimate: Logarithm of the mean weight, minus the log-normalizers of the energy-based
            sites. But for the error of these, :math:`p(x)` is estimated without bias, so
            :math:`\log p(x)` is low on average.
        standard_error: That of ``estimate``, the error of the log-normalizers included. Trust it
            while ``effective_sample_size`` is large.
        effective_sample_size: Kish's :math:`(\sum w)^2 / \sum w^2`.
        log_normalizer_error: Standard error of the log-normalizers by themselves. It is common to
            all data points: that of a mean over ``N`` of them is
            :math:`\sqrt{\sum_n (s_n^2 - c_n^2) / N^2 + \bar c^2}` with errors :math:`s_n` and
            this part :math:`c_n` of them.
    """

    estimate: Any
    standard_error: Any
    effective_sample_size: Any
    log_normalizer_error: Any


def summarize_log_marginal(
    log_weights: Any, log_normalizer: Any, log_normalizer_error: Any
) -> LogMarginal:
    r"""What weights that leave out a normalizing constant say of the evidence.

    .. math::
        \log \hat p(x) = \log \frac1K \sum_k w_k - \log \hat Z, \qquad
        \mathrm{se}^2 = \frac1{\mathrm{ESS}} - \frac1K + \mathrm{se}^2_{\log Z}

    Args:
        log_weights: :math:`\log w_k`, shape ``(K, *batch)``.
        log_normalizer: :math:`\log \hat Z`, summed over energy-based sites, shape ``(*batch,)``.
        log_normalizer_error: Its standard error, same shape.
    """
    xp = array_namespace(log_weights)
    weights = summarize_log_weights(log_weights)
    common = log_normalizer_error + xp.zeros_like(weights.estimate)
    return LogMarginal(
        weights.estimate - log_normalizer,
        xp.sqrt(weights.standard_error**2 + common**2),
        weights.effective_sample_size,
        common,
    )


def describe_doubts(result: LogMarginal) -> Iterator[str]:
    """What a user should know of a result before relying on it."""
    xp = array_namespace(result.effective_sample_size)
    sizes = xp.reshape(result.effective_sample_size, (-1,))
    num_few = int(xp.sum(xp.astype(sizes < _FEW, xp.int32)))
    if num_few:
        yield (
            f"The weights for log p(x) are worth as few as {float(xp.min(sizes)):.1f} equal ones, "
            f"less than {_FEW:.0f} at {num_few} of {sizes.shape[0]} data points: their estimates "
            "are low, by more than the standard errors say. Take more samples or temperatures, or "
            "a better guide or kernel."
        )


def inverse_temperatures(num_temperatures: int) -> list[float]:
    r""":math:`\beta_k = (k / K)^4` for :math:`k = 1, \dots, K`.

    References:
        | Marginal likelihood estimation via power posteriors (Friel and Pettitt, 2008)
    """
    return [(k / num_temperatures) ** _POWER for k in range(1, num_temperatures + 1)]
