"""Score matching: an energy trained by its slope, which no log-normalizer enters."""

import math
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_choice, check_positive, check_positive_integer

__all__ = ["check_method", "denoising_score_matching", "score_matching"]


def check_method(method: Any, num_projections: Any, variance: Any) -> None:
    """Raise unless these describe one way of score matching, with what it needs and no more."""
    check_choice("method", method, ["exact", "sliced", "denoising"])
    check_positive_integer("num_projections", num_projections)
    if method != "sliced" and num_projections != 1:
        raise ValueError(
            "Expected `num_projections` with method='sliced' only, "
            f"got {num_projections!r} with method={method!r}."
        )
    if method == "denoising":
        check_positive("variance", variance)
    elif variance is not None:
        raise ValueError(
            "Expected `variance` with method='denoising' only, "
            f"got {variance!r} with method={method!r}."
        )


def score_matching(gradient: Any, directions: Any, products: Any, event_ndim: int) -> Any:
    r"""Score matching of each data point, the trace taken from K directions.

    .. math::
        \ell = \tfrac12 |\nabla U|^2 - \frac1K \sum_{k=1}^K v_k^\top \nabla^2 U\, v_k

    The mean is the trace of the Hessian where :math:`v v^\top` is the identity on average: over
    the :math:`K = D` vectors :math:`\sqrt D\, e_k` it is that to the last bits, over random
    vectors in expectation.

    Args:
        gradient: :math:`\nabla U`, shape ``(*batch, *event)``.
        directions: :math:`v_k`, shape ``(K, *batch, *event)``.
        products: :math:`\nabla^2 U\, v_k`, shape ``(K, *batch, *event)``.
        event_ndim: Number of event dimensions.

    Returns:
        :math:`\ell`, shape ``(*batch,)``.

    References:
        | Estimation of Non-Normalized Statistical Models by Score Matching (Hyvarinen, 2005)
        | Sliced Score Matching: A Scalable Approach to Density and Score Estimation
          (Song et al., 2019), https://arxiv.org/abs/1905.07088 (the variance-reduced form)
    """
    xp = array_namespace(gradient, directions, products)
    curvature = xp.mean(_sum_event(directions * products, event_ndim), axis=0)
    return 0.5 * _sum_event(gradient**2, event_ndim) - curvature


def denoising_score_matching(gradient: Any, noise: Any, variance: float, event_ndim: int) -> Any:
    r"""Denoising score matching of each data point.

    .. math::
        \ell = \frac t2 \Big| \nabla U(\tilde x) - \frac{\tilde x - x}t \Big|^2
             = \frac12 \big| \sqrt t\, \nabla U(\tilde x) - \xi \big|^2, \qquad
        \tilde x = x + \sqrt t\, \xi

    The factor :math:`t` is not in the paper: with it a flat energy has the loss :math:`D/2` on
    average at every variance, and no variance makes steps large or small.

    Args:
        gradient: :math:`\nabla U(\tilde x)`, shape ``(*batch, *event)``.
        noise: :math:`\xi`, standard normal, of the same shape.
        variance: :math:`t`, the variance of the noise.
        event_ndim: Number of event dimensions.

    Returns:
        :math:`\ell`, shape ``(*batch,)``.

    References:
        | A Connection Between Score Matching and Denoising Autoencoders (Vincent, 2011)
        | https://doi.org/10.1162/NECO_a_00142
    """
    return 0.5 * _sum_event((math.sqrt(variance) * gradient - noise) ** 2, event_ndim)


def _sum_event(x: Any, event_ndim: int) -> Any:
    # By a shape, for some libraries take no axes to mean all of them.
    xp = array_namespace(x)
    batch_shape = x.shape[: x.ndim - event_ndim]
    num_coordinates = math.prod(x.shape[x.ndim - event_ndim :])
    return xp.sum(xp.reshape(x, (*batch_shape, num_coordinates)), axis=-1)
