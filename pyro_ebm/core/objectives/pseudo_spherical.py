"""Pseudo-spherical contrastive divergence: a scoring rule that needs no normalizer."""

from typing import Any, NamedTuple

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_finite
from pyro_ebm.core.numerics import log_mean_exp

__all__ = ["PseudoSphericalWeights", "check_gamma", "pseudo_spherical"]


class PseudoSphericalWeights(NamedTuple):
    r"""What potentials U are multiplied with; see :func:`pseudo_spherical`.

    Attributes:
        positive: Of :math:`U(x_i)`, shape ``(*batch,)``; 1 on average.
        negative: Of :math:`U(x^-_m)`, shape ``(M,)``; 1 on average.
        value: :math:`\frac1\gamma \log \frac1M \sum_m e^{-\gamma U(x^-_m)} - \frac1\gamma \log
            \frac1N \sum_i e^{-\gamma U(x_i)}`, a number.
    """

    positive: Any
    negative: Any
    value: Any


def pseudo_spherical(gamma: float, positive: Any, negative: Any) -> PseudoSphericalWeights:
    r"""Weights of N values and M draws of the model q in a loss that trains its potential.

    The pseudo-spherical score of q is the same for every multiple of it, so that
    :math:`e^{-U}` does in its place. Minus its logarithm, in expectation over data p, is

    .. math::
        L = -\frac1\gamma \log \mathbb E_p[e^{-\gamma U}]
            + \frac1{\gamma + 1} \log \int e^{-(\gamma + 1) U(x)}\, dx, \qquad
        \nabla L = \mathbb E_{\tilde p}[\nabla U] - \mathbb E_r[\nabla U]

    with :math:`\tilde p \propto p\, e^{-\gamma U}` and :math:`r \propto e^{-(\gamma + 1) U}`, that
    is :math:`q\, e^{-\gamma U}`. With the weights held constant, the gradient of
    :math:`\frac1N \sum_i w_i U(x_i) - \frac1M \sum_m w^-_m U(x^-_m)` estimates it:

    .. math::
        w_i = N\, \frac{e^{-\gamma U(x_i)}}{\sum_k e^{-\gamma U(x_k)}}, \qquad
        w^-_m = M\, \frac{e^{-\gamma U(x^-_m)}}{\sum_k e^{-\gamma U(x^-_k)}}

    It is also the gradient of ``value``, which is L less what depends on the unknown normalizer.
    For :math:`\gamma \to 0` all weights are 1: contrastive divergence.

    Args:
        gamma: :math:`\gamma > -1`, not 0. Above 0 data of high energy count less, below 0 more.
        positive: :math:`U(x_i)` of data, shape ``(*batch,)``.
        negative: :math:`U(x^-_m)` of draws of the model, shape ``(M,)``.

    References:
        | Pseudo-Spherical Contrastive Divergence (Yu et al., 2021)
        | https://arxiv.org/abs/2111.00780
    """
    xp = array_namespace(positive, negative)
    logs = [xp.reshape(-gamma * potential, (-1,)) for potential in (positive, negative)]
    means = [log_mean_exp(log) for log in logs]
    return PseudoSphericalWeights(
        positive=xp.reshape(xp.exp(logs[0] - means[0]), positive.shape),
        negative=xp.exp(logs[1] - means[1]),
        value=(means[1] - means[0]) / gamma,
    )


def check_gamma(gamma: Any) -> float:
    """Return ``gamma`` as a float; raise unless it is a number above -1 other than 0."""
    gamma = check_finite("gamma", gamma)
    if gamma <= -1 or gamma == 0:
        raise ValueError(
            f"Expected `gamma` to be above -1 and not 0, got {gamma:g}. At 0 the objective is "
            "ContrastiveDivergence."
        )
    return gamma
