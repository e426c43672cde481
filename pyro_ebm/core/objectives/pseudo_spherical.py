"""Pseudo-spherical contrastive divergence: a scoring rule without a normalizer."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_finite, check_nonnegative
from pyro_ebm.core.numerics import (
    effective_sample_size,
    log_mean_exp,
    log_positive,
    logsumexp,
)
from pyro_ebm.core.objectives.loss import EvaluatedLoss, Loss, Metrics
from pyro_ebm.core.objectives.negatives import (
    Negatives,
    acceptance_metrics,
    check_negatives,
    evaluate_energies,
)
from pyro_ebm.core.objectives.settings import convert_fields
from pyro_ebm.core.samplers.run import ShortRun


@dataclass(frozen=True)
class PseudoSpherical(Negatives):
    r"""Objective that is contrastive divergence with values and draws weighted by density.

    .. math::
        \nabla L = \mathbb E_{\tilde p}[\nabla U] - \mathbb E_r[\nabla U], \qquad
        \tilde p \propto p\, e^{-\gamma U}, \quad r \propto q\, e^{-\gamma U}, \quad
        U = E - \log p_0

    Here p is the distribution of the site's values and q the model. Its draws, by MCMC from
    the base or from attached chains (``chains=``, as in contrastive divergence), have weights
    ``softmax(-gamma U)``, and so have the values. Energy and base are trained together.

    Without a penalty the loss is the same number for every value,
    :math:`\frac1\gamma \log (\overline{e^{-\gamma U(x^-)}} / \overline{e^{-\gamma U(x)}})`: near
    0 when draws resemble values, and not a divergence.

    Traps:

    * Weights are normalized over all values that the objective sees, which share one base. In a
      plate that subsamples this is the minibatch, whose ratio of means has a bias of order one
      over its size; where processes average their gradients, it is the part of one. A masked value
      has weight zero; scales of single values multiply theirs.
    * Energies that differ by many times :math:`1 / |\gamma|` leave all weight to one value: watch
      the metrics ``effective_values`` and ``effective_negatives``.
    * From :math:`\gamma = -1/2` down the weights of draws have infinite variance.

    Args:
        gamma: :math:`\gamma > -1`, not 0. Above 0 values of high energy count less (robust to
            outliers), below 0 more (covers them); near 0 it is contrastive divergence.
        sampler: See :class:`~pyro_ebm.core.objectives.negatives.Negatives`.
        num_steps: See there.
        num_samples: See there.
        energy_penalty: :math:`\lambda \ge 0` of :math:`\lambda (E(x)^2 + \overline{E(x^-)^2})`.

    Raises:
        TypeError: If ``sampler`` is not a sampler.
        ValueError: If another argument is out of range; in ``loss``, if the base has a batch.

    References:
        | Pseudo-Spherical Contrastive Divergence (Yu et al., 2021),
          https://arxiv.org/abs/2111.00780
    """

    _is_mean_over_parts = False

    gamma: float
    _: KW_ONLY
    sampler: Any = None
    num_steps: int | None = None
    num_samples: int | None = None
    energy_penalty: float = 0.0

    def __post_init__(self) -> None:
        check_negatives(self)
        convert_fields(self, gamma=_check_gamma, energy_penalty=check_nonnegative)

    def _loss(self, distribution: Any, value: Any, draws: ShortRun, counts: Any) -> Loss:
        energies = evaluate_energies(distribution, value, draws.samples)
        potentials = self._constant(energies.positive), self._constant(energies.negative)
        counts = None if counts is None else self._constant(counts)
        weights = pseudo_spherical(self.gamma, *potentials, counts)
        xp = array_namespace(*potentials)
        drawn = xp.mean(weights.negative * energies.negative, axis=0)
        loss = weights.positive * energies.positive - drawn
        loss = weights.value + loss - self._constant(loss)
        loss = loss + self.energy_penalty * energies.mean_square
        sizes = pseudo_spherical_metrics(self.gamma, *potentials)
        metrics = {**energies.metrics(self._constant), **sizes, **acceptance_metrics(draws)}
        return EvaluatedLoss(loss, metrics, energies.positive)


class PseudoSphericalWeights(NamedTuple):
    r"""Weights of potentials U; see :func:`pseudo_spherical`.

    Attributes:
        positive: Weights of :math:`U(x_i)`, shape ``(*batch,)``; 1 on average over the counts.
        negative: Weights of :math:`U(x^-_m)`, shape ``(M,)``; 1 on average.
        value: :math:`\frac1\gamma \log \frac1M \sum_m e^{-\gamma U(x^-_m)} - \frac1\gamma \log
            \frac1N \sum_i c_i e^{-\gamma U(x_i)}`, a number.
    """

    positive: Any
    negative: Any
    value: Any


def pseudo_spherical(
    gamma: float, positive: Any, negative: Any, counts: Any = None
) -> PseudoSphericalWeights:
    r"""Compute weights of N values and M draws of the model q in a loss that trains q.

    The pseudo-spherical scoring rule is the same for every multiple of q, which :math:`e^{-U}`
    therefore replaces. Minus its logarithm, in expectation over data p, is

    .. math::
        L = -\frac1\gamma \log \mathbb E_p[e^{-\gamma U}]
            + \frac1{\gamma + 1} \log \int e^{-(\gamma + 1) U(x)}\, dx, \qquad
        \nabla L = \mathbb E_{\tilde p}[\nabla U] - \mathbb E_r[\nabla U]

    With the weights held constant, the gradient of
    :math:`\frac1N \sum_i c_i w_i U(x_i) - \frac1M \sum_m w^-_m U(x^-_m)` estimates it, where
    value i counts :math:`c_i` times and :math:`N = \sum_i c_i`:

    .. math::
        w_i = N\, \frac{e^{-\gamma U(x_i)}}{\sum_k c_k e^{-\gamma U(x_k)}}, \qquad
        w^-_m = M\, \frac{e^{-\gamma U(x^-_m)}}{\sum_k e^{-\gamma U(x^-_k)}}

    It is also the gradient of ``value``, which is L less what depends on the unknown normalizer.

    Args:
        gamma: :math:`\gamma > -1`, not 0.
        positive: :math:`U(x_i)` of data, shape ``(*batch,)``.
        negative: :math:`U(x^-_m)` of draws of the model, shape ``(M,)``.
        counts: :math:`c_i \ge 0`, shape ``(*batch,)``; None for ones. What counts zero times may be
            NaN, and has weight zero.
    """
    xp = array_namespace(positive, negative)
    logs = [xp.reshape(-gamma * potential, (-1,)) for potential in (positive, negative)]
    log_counts = None if counts is None else _log_counts(positive, counts)
    means = [_log_mean_exp(logs[0], log_counts), log_mean_exp(logs[1])]
    weights = xp.exp(_counted(logs[0], log_counts) - means[0])
    return PseudoSphericalWeights(
        positive=xp.reshape(weights, positive.shape),
        negative=xp.exp(logs[1] - means[1]),
        value=(means[1] - means[0]) / gamma,
    )


def pseudo_spherical_metrics(gamma: float, positive: Any, negative: Any) -> Metrics:
    """Return effective sample sizes of values and of draws; arguments as constants."""
    xp = array_namespace(positive, negative)

    def values(counts: Any = None) -> Any:
        log_weights = -gamma * xp.reshape(positive, (-1,))
        if counts is None:
            return effective_sample_size(log_weights)
        log_counts = _log_counts(positive, counts)
        return effective_sample_size(_counted(log_weights, log_counts) + log_counts)

    return {
        "effective_values": values,
        "effective_negatives": lambda: effective_sample_size(-gamma * xp.reshape(negative, (-1,))),
    }


def _log_counts(positive: Any, counts: Any) -> Any:
    """Logarithms of counts, minus infinity for zero; shape ``(N,)``."""
    xp = array_namespace(positive, counts)
    counts = xp.reshape(xp.broadcast_to(counts, positive.shape), (-1,))
    return xp.where(counts > 0, log_positive(counts), xp.full_like(counts, -math.inf))


def _counted(log_weights: Any, log_counts: Any) -> Any:
    """Log-weights, minus infinity where the count is zero."""
    if log_counts is None:
        return log_weights
    xp = array_namespace(log_weights, log_counts)
    return xp.where(log_counts > -math.inf, log_weights, xp.full_like(log_weights, -math.inf))


def _log_mean_exp(log_weights: Any, log_counts: Any) -> Any:
    """Logarithm of a mean in which each weight counts as often as it should; 0 without any."""
    if log_counts is None:
        return log_mean_exp(log_weights)
    total = logsumexp(log_counts)
    mean = logsumexp(_counted(log_weights, log_counts) + log_counts) - total
    xp = array_namespace(mean)
    return xp.where(total > -math.inf, mean, xp.zeros_like(mean))


def _check_gamma(name: str, gamma: Any) -> float:
    gamma = check_finite(name, gamma)
    if gamma <= -1 or gamma == 0:
        raise ValueError(
            f"Expected `{name}` to be above -1 and not 0, got {gamma:g}. At 0 the objective is "
            "ContrastiveDivergence."
        )
    return gamma
