"""Maximum likelihood with a normalizer from draws of the base."""

from dataclasses import dataclass
from typing import Any

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.numerics import log_mean_exp
from pyro_ebm.core.objectives.loss import EvaluatedLoss, Loss, Objective
from pyro_ebm.core.objectives.negatives import draw_from_base, evaluate_energies, weight_metrics
from pyro_ebm.core.objectives.settings import convert_fields


@dataclass(frozen=True, kw_only=True)
class MaximumLikelihood(Objective):
    r"""Objective that is the negative log-likelihood itself, in few dimensions.

    .. math::
        \ell(x) = U(x) + \log \frac1M \sum_{m=1}^M \frac{e^{-U(x_m)}}{p_0(x_m)}, \qquad
        x_m \sim p_0, \quad U = E - \log p_0

    No MCMC. Energy and base are trained together. The base needs ``sample`` and ``log_prob``.

    The loss is reliable while many draws of the base carry weight under the model. In more than a
    few dimensions, or once the energy has moved far from its base, hardly any does: the loss is
    then low by many nats, and its gradient is that of a few draws. Watch the metric
    ``effective_sample_size``. The bias is of order :math:`1 / M`; processes that average their
    gradients have each a normalizer from their own draws, and the bias of one.

    Args:
        num_samples: :math:`M`, draws for each element of the base's batch (usually there is one).

    Raises:
        ValueError: If the number is not a positive integer; in ``loss``, if there is no base, or
            one without ``sample`` or ``log_prob``.
    """

    _is_mean_over_parts = False

    num_samples: int = 1000

    def __post_init__(self) -> None:
        convert_fields(self, num_samples=check_positive_integer)

    def _loss(self, distribution: Any, value: Any, *rng_key: Any) -> Loss:
        draws, log_density = self._draw(distribution.base, *rng_key)
        energies = evaluate_energies(distribution, self._constant(value), draws)
        loss = maximum_likelihood(energies.positive, energies.negative, log_density)
        weights = weight_metrics(-self._constant(energies.negative_energy))
        metrics = {**energies.metrics(self._constant), **weights}
        return EvaluatedLoss(loss, metrics, energies.positive)

    def _draw(self, base: Any, *rng_key: Any) -> tuple[Any, Any]:
        """Draws of the base with their log-densities, as constants."""
        try:
            draws = draw_from_base(self, base, *rng_key)
            return draws, self._constant(base.log_prob(draws))
        except NotImplementedError as error:
            raise ValueError(f"Expected a base with sample and log_prob, got {base}.") from error


def maximum_likelihood(positive: Any, negative: Any, log_density: Any) -> Any:
    r"""Compute the negative log-likelihood by importance sampling, shape ``(*batch,)``.

    With :math:`p_0` in the denominator and the draws held constant,

    .. math:: \hat Z = \frac1M \sum_{m=1}^M \frac{e^{-U(x_m)}}{p_0(x_m)}

    is unbiased, and its gradient is that of :math:`Z = \int e^{-U(x)}\, dx` in the parameters of
    both energy and base. Its logarithm is low on average (Jensen's inequality), by about half the
    relative variance of :math:`\hat Z`.

    Args:
        positive: :math:`U(x)`, shape ``(*batch,)``.
        negative: :math:`U(x_m)` of draws of the base, shape ``(M, *context)``, where ``context``
            broadcasts with ``batch``: each element of the base's batch has its own normalizer.
        log_density: :math:`\log p_0(x_m)` as a constant, of that shape.
    """
    return positive + log_mean_exp(-negative - log_density)
