"""f-divergence minimisation: an energy and a critic that play for the density ratio."""

from typing import Any, NamedTuple

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_choice
from pyro_ebm.core.objectives.divergences import Divergence

__all__ = ["FDivergenceWeights", "f_divergence"]


class FDivergenceWeights(NamedTuple):
    r"""What energy E and critic H are multiplied with; see :func:`f_divergence`.

    Attributes:
        positive_energy: Of :math:`E(x^+)`, shape ``(*batch,)``.
        positive_critic: Of :math:`H(x^+)`, shape ``(*batch,)``.
        negative_energy: Of :math:`E(x^-_m)`, shape ``(M, *context)``.
        negative_critic: Of :math:`H(x^-_m)`, shape ``(M, *context)``.
        value: :math:`a(\ell^+) - \frac1M \sum_m b(\ell^-_m)`, shape ``(*batch,)``. Its mean over
            the data is an estimate of V, in expectation a lower bound of :math:`D_f(p \| q)`.
    """

    positive_energy: Any
    positive_critic: Any
    negative_energy: Any
    negative_critic: Any
    value: Any


def f_divergence(
    divergence: Divergence,
    positive: Any,
    negative: Any,
    *,
    bound: float | None = None,
    gradient: str = "full",
) -> FDivergenceWeights:
    r"""Weights of energy and critic in a loss that trains both, from M draws of the model.

    The model q, of energy E, and the critic H play a game for the log-ratio of data p to q,

    .. math::
        \min_E \max_H V, \qquad V = \mathbb E_p[a(\ell)] - \mathbb E_q[b(\ell)], \qquad
        \ell = H + E

    The maximum over H is :math:`D_f(p \| q)`, at :math:`\ell = \log p / q`. With all weights held
    constant, the gradient of

    .. math::
        v^+ E(x^+) - w^+ H(x^+) + \frac1M \sum_m v^-_m E(x^-_m) + \frac1M \sum_m w^-_m H(x^-_m)

    in the parameters of E is an unbiased estimate of that of V, which descends; in those of H it
    is minus that of V, which ascends. The weights, with derivatives in :math:`\ell`, are

    .. math::
        v^+ = w^+ = a'(\ell^+), \qquad w^-_m = b'(\ell^-_m), \qquad
        v^-_m = \frac{M}{M-1}\Big(b(\ell^-_m) - \frac1M \sum_k b(\ell^-_k)\Big) - b'(\ell^-_m)

    The first term of :math:`v^-` is the covariance of b and :math:`\nabla E` under q, by which the
    law of the draws depends on E. The authors' code lacks the factor M/(M - 1), which removes the
    bias of the product of two means.

    Args:
        divergence: Record of f, a, b and their derivatives.
        positive: :math:`\ell^+` of data, shape ``(*batch,)``.
        negative: :math:`\ell^-` of draws of the model, shape ``(M, *context)``, where ``context``
            broadcasts with ``batch`` (empty unless the energy is conditional).
        bound: All functions are taken of :math:`\ell` clipped to :math:`\pm` this, so that
            :math:`b' = e^\ell a'` also holds beyond; None for no bound.
        gradient: ``"full"``, or ``"covariance"`` for the covariance alone in the gradient of E
            (:math:`v^+ = 0` and no :math:`b'` in :math:`v^-`): exact when H is optimal, and stable
            at learning rates where the full gradient is not.

    Raises:
        ValueError: If there are fewer than two draws, which have no covariance, or ``gradient``
            is something else.

    References:
        | Training Deep Energy-Based Models with f-Divergence Minimization (Yu et al., 2020)
        | https://arxiv.org/abs/2003.03463
    """
    check_choice("gradient", gradient, ("full", "covariance"))
    num_negatives = negative.shape[0]
    if num_negatives < 2:
        raise ValueError(
            "Expected at least 2 draws of the model, whose covariance is needed, "
            f"got {num_negatives}."
        )
    xp = array_namespace(positive, negative)
    if bound is not None:
        positive, negative = xp.clip(positive, -bound, bound), xp.clip(negative, -bound, bound)
    a_derivative = divergence.a_derivative(positive)
    b, b_derivative = divergence.b(negative), divergence.b_derivative(negative)
    mean_b = xp.mean(b, axis=0)
    covariance = num_negatives / (num_negatives - 1) * (b - mean_b)
    is_full = gradient == "full"
    return FDivergenceWeights(
        positive_energy=a_derivative if is_full else xp.zeros_like(a_derivative),
        positive_critic=a_derivative,
        negative_energy=covariance - b_derivative if is_full else covariance,
        negative_critic=b_derivative,
        value=divergence.a(positive) - mean_b,
    )
