"""Energy discrepancy: an energy trained by its values alone."""

import math
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.numerics import logsumexp

__all__ = ["energy_discrepancy"]


def energy_discrepancy(positive: Any, negative: Any, stabilization: float) -> Any:
    r"""Energy discrepancy of each data point, estimated with M perturbed copies of it.

    .. math::
        \ell = \log\Big( \frac{w}{M} + \frac1M \sum_{j=1}^M e^{U(x) - U(x_j)} \Big)

    Here :math:`U = E - \log p_0` is the full potential, and the :math:`x_j` are drawn by noising
    :math:`x` once to :math:`y` and un-noising :math:`y` M times. With :math:`w = 1` the
    minimiser is exactly :math:`-\log p` (up to a constant) for every M; smaller :math:`w`
    sharpens the fit and larger :math:`w` flattens it. The authors' code leaves out
    :math:`-\log M`, which shifts the value and no gradient.

    Args:
        positive: :math:`U(x)`, shape ``(*batch,)``.
        negative: :math:`U(x_j)`, shape ``(M, *batch)``. Plus infinity (outside the support)
            counts as a zero term.
        stabilization: :math:`w \ge 0`.

    Returns:
        :math:`\ell`, shape ``(*batch,)``. A constant energy gives :math:`\log((M + w)/M)`.

    References:
        | Energy Discrepancies: A Score-Independent Loss for Energy-Based Models
          (Schroder et al., 2023)
        | https://arxiv.org/abs/2307.06431
    """
    xp = array_namespace(positive, negative)
    terms = positive[None, ...] - negative
    # log 0 would be a term of its own with a NaN gradient: without stabilization there is none.
    if stabilization > 0:
        constant = xp.full_like(terms[:1, ...], math.log(stabilization))
        terms = xp.concat([terms, constant], axis=0)
    return logsumexp(terms) - math.log(negative.shape[0])
