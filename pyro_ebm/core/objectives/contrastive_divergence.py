"""Contrastive divergence: maximum likelihood with draws of the model."""

from typing import Any

from array_api_compat import array_namespace

__all__ = ["contrastive_divergence"]


def contrastive_divergence(positive: Any, negative: Any) -> Any:
    r"""Loss whose gradient is that of the negative log-likelihood, given draws of the model.

    .. math::
        \ell = U(x) - \frac1M \sum_{m=1}^M U(x^-_m), \qquad
        \nabla_\theta (-\log p_\theta(x)) = \nabla U(x) - \mathbb E_{p_\theta}[\nabla U]

    Args:
        positive: :math:`U(x)`, energy minus log-density of the base, shape ``(*batch,)``.
        negative: :math:`U(x^-_m)` of draws of the model, shape ``(M, *context)``, where
            ``context`` broadcasts with ``batch``.

    Returns:
        :math:`\ell`, shape ``(*batch,)``. Its value says nothing of the likelihood.

    References:
        | Training products of experts by minimizing contrastive divergence (Hinton, 2002)
    """
    xp = array_namespace(positive, negative)
    return positive - xp.mean(negative, axis=0)
