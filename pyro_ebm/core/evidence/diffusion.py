r"""Two densities under one heat flow: how far apart they are, modes that one misses included.

Both are smoothed by noise of variance t, as :math:`dx = dW` does; p and q become
:math:`p_t` and :math:`q_t`, and

.. math::
    KL(p \,\|\, q) = \tfrac12 \int_0^T
    \mathbb E_{p_t} |\nabla \log p_t - \nabla \log q_t|^2\, dt + KL(p_T \,\|\, q_T).
"""

import math
from typing import Any

from array_api_compat import array_namespace, device

from pyro_ebm.core.numerics import logsumexp

__all__ = [
    "REMAINDER",
    "flow_times",
    "mixed_log_weights",
    "smoothed_score",
    "smoothing_scale",
    "weighted_spread",
]

# First and last time of a flow, as multiples of the densities' mean squared distance.
_FIRST, _LAST = 1e-6, 1e4
# Three in a decade: the trapezoid rule is then good to 1e-5 nats on mixtures of normals.
_NUM_TIMES = 31
# What is left at the last time is at most this, by a coupling: E|y - y'|^2 / 2T.
REMAINDER = 0.5 / _LAST


def flow_times(spread: Any) -> tuple[Any, Any]:
    r"""Times at which to compare two densities, and their weights.

    .. math::
        \tfrac12 \int_0^T F(t)\, dt \approx \sum_k c_k F(t_k), \qquad
        KL(p_T \,\|\, q_T) \le \frac{\mathbb E |y - y'|^2}{2T}

    The rule is the trapezoid's in :math:`\log t`; before the first time F is taken for constant.
    The bound, 0.00005 nats at the last time, holds for any coupling, and here for independent
    values.

    Args:
        spread: :math:`\mathbb E |y - y'|^2` of independent :math:`y \sim p`, :math:`y' \sim q`, a
            scalar array.

    Returns:
        Both of shape ``(num_times,)``, in rising order.

    References:
        | Interpretation and generalization of score matching (Lyu, 2009)
        | https://arxiv.org/abs/1205.2629
    """
    xp = array_namespace(spread)
    step = math.log(_LAST / _FIRST) / (_NUM_TIMES - 1)
    number = xp.arange(_NUM_TIMES, dtype=spread.dtype, device=device(spread))
    times = spread * _FIRST * xp.exp(step * number)
    interval = xp.full_like(times, step)
    # An end has half an interval; all that comes before the first is added to it.
    interval = xp.where(number == 0, 0.5 * interval + 1.0, interval)
    interval = xp.where(number == _NUM_TIMES - 1, 0.5 * interval, interval)
    return times, 0.5 * interval * times


def weighted_spread(value: Any, other: Any, log_weights: Any) -> Any:
    r""":math:`\mathbb E |y - y'|^2` of independent values, those of one kind weighted.

    Args:
        value: Draws of p, shape ``(N, D)``.
        other: Shape ``(M, D)``.
        log_weights: With which these are draws of q, up to a constant, shape ``(M,)``.
    """
    xp = array_namespace(value)
    weights = xp.exp(log_weights - logsumexp(log_weights))[:, None]
    mean = xp.mean(value, axis=0)
    # About a mean, for squares of values far from zero would cancel.
    within = xp.sum(xp.mean((value - mean) ** 2, axis=0))
    return within + xp.sum(weights * (other - mean) ** 2)


def smoothing_scale(score: Any, log_weights: Any, spread: Any) -> Any:
    r"""Variance of the normal density whose scores are as large, :math:`D / \mathbb E |s|^2`.

    It is at most the variance of each dimension, by Cramer and Rao, and so at most ``spread``.

    Args:
        score: :math:`s`, shape ``(M, D)``.
        log_weights: Of these scores, up to a constant, shape ``(M,)``.
        spread: The largest that it may be.
    """
    xp = array_namespace(score)
    weights = xp.exp(log_weights - logsumexp(log_weights))[:, None]
    counted = xp.where(weights > 0, weights * score**2, xp.zeros_like(score))
    precision = xp.sum(counted) / score.shape[-1]
    return 1.0 / xp.maximum(precision, 1.0 / spread)


def smoothed_score(
    value: Any, time: Any, points: Any, scores: Any, log_weights: Any, scale: Any
) -> tuple[Any, Any]:
    r"""Score of a smoothed density, by weighted points of it.

    .. math::
        \nabla \log p_t(x) = \mathbb E\Big[\frac{y + s\, \nabla \log p(y) - x}{s + t}
        \,\Big|\, x\Big], \qquad p(y | x) \propto p(y)\, N(x; y, t I)

    It is so for every s: for s = 0 by Tweedie's formula, for infinite s because smoothing and
    slopes commute. If p is normal of variance s, all points agree on the score, and none of them
    weighs down its estimate; elsewhere s says from which time on p is better seen by where its
    points are than by its slopes.

    Args:
        value: :math:`x`, shape ``(N, D)``.
        time: :math:`t > 0`.
        points: :math:`y`, shape ``(N, K, D)``, or ``(1, K, D)`` if all values share them.
        scores: :math:`\nabla \log p(y)`, of the shape of ``points``.
        log_weights: With which these are draws of p, shape ``(N, K)`` or ``(1, K)``; the
            density of the noise is added here.
        scale: :math:`s \ge 0`.

    Returns:
        Scores, shape ``(N, D)``, and how many equal weights theirs are worth, shape ``(N,)``.

    References:
        | Tweedie's formula and selection bias (Efron, 2011)
    """
    xp = array_namespace(value)
    logits = log_weights - 0.5 / time * xp.sum((value[:, None, :] - points) ** 2, axis=-1)
    weights = xp.exp(logits - logsumexp(logits, axis=1)[:, None])
    # Far out, where nothing weighs anything, slopes may be infinite.
    slopes = xp.where(weights[..., None] > 0, scores, xp.zeros_like(scores))
    mean = xp.sum(weights[..., None] * (points + scale * slopes), axis=1)
    return (mean - value) / (scale + time), 1.0 / xp.sum(weights**2, axis=1)


def mixed_log_weights(
    value: Any, time: Any, points: Any, log_density: Any, log_base: Any, counts: tuple[int, int]
) -> Any:
    r"""Log-weights of points from near a value and from a base, as draws of a density.

    .. math::
        \log w(y) = \log p(y) - \log \big(m\, N(y; x, t I) + M\, p_0(y)\big)

    Args:
        value: :math:`x`, shape ``(N, D)``.
        time: :math:`t > 0`.
        points: :math:`y`, shape ``(N, m + M, D)``.
        log_density: :math:`\log p(y)` up to a constant, shape ``(N, m + M)``.
        log_base: :math:`\log p_0(y)`, of the same shape.
        counts: :math:`m` and :math:`M`.

    Returns:
        Shape ``(N, m + M)``.

    References:
        | Optimally combining sampling techniques for Monte Carlo rendering (Veach and Guibas,
          1995)
    """
    xp = array_namespace(value)
    num_near, num_base = counts
    square = xp.sum((value[:, None, :] - points) ** 2, axis=-1)
    normalizer = 0.5 * value.shape[-1] * xp.log(2.0 * math.pi * time)
    log_near = math.log(num_near) - 0.5 / time * square - normalizer
    return log_density - xp.logaddexp(log_near, math.log(num_base) + log_base)
