"""Maximum likelihood with a normalizer from draws of the base."""

from typing import Any

from pyro_ebm.core.numerics import log_mean_exp

__all__ = ["maximum_likelihood"]


def maximum_likelihood(positive: Any, negative: Any, log_density: Any) -> Any:
    r"""Negative log-likelihood of each value, its normalizer estimated by importance sampling.

    .. math::
        \ell = U(x) + \log \hat Z, \qquad
        \hat Z = \frac1M \sum_{m=1}^M \frac{e^{-U(x_m)}}{p_0(x_m)}, \qquad x_m \sim p_0

    with :math:`U = E - \log p_0`. Written so, with :math:`p_0` in the denominator and the draws
    held constant, :math:`\hat Z` is unbiased and its gradient is that of
    :math:`Z = \int e^{-U(x)}\, dx` in the parameters of both the energy and the base. Its
    logarithm is low on average (Jensen's inequality), by about half the relative variance of
    :math:`\hat Z`.

    Args:
        positive: :math:`U(x)`, shape ``(*batch,)``.
        negative: :math:`U(x_m)` of draws of the base, shape ``(M, *context)``, where ``context``
            broadcasts with ``batch``: each element of the base's batch has a normalizer.
        log_density: :math:`\log p_0(x_m)` as a constant, of that shape.

    Returns:
        :math:`\ell`, shape ``(*batch,)``.
    """
    return positive + log_mean_exp(-negative - log_density)
