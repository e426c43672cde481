"""Noise-contrastive estimation: values against draws of the base."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_choice, check_positive_integer
from pyro_ebm.core.distributions.checks import is_implicit
from pyro_ebm.core.distributions.context import own_shape
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives.loss import EvaluatedLoss, Loss, Objective
from pyro_ebm.core.objectives.negatives import (
    check_base_loss,
    count_rows,
    draw_from_base,
    energy_metrics,
    is_reparametrized,
    scaled_energies,
    weighted_mean,
)
from pyro_ebm.core.objectives.settings import convert_fields


@dataclass(frozen=True, kw_only=True)
class NoiseContrastive(Objective):
    r"""Objective that separates values from draws of the base by logistic regression.

    .. math::
        \ell(x) = \zeta(h(x)) + \frac1M \sum_{m=1}^M \zeta(-h(y_m)), \qquad
        h = E + A, \quad y_m \sim p_0, \quad \zeta(t) = \log(1 + e^t)

    At its minimum :math:`h = -\log(p / p_0)` for data p, so that A is the log-normalizer: attach
    it as ``log_normalizer``, a learned scalar or, with contexts, one number for each. Without it
    the energy learns to be normalized itself.

    It needs neither MCMC nor a density of the base. No weight is exponential in the energy, so
    that it is steadier than ``MaximumLikelihood`` and ``KALE``; but where base and data hardly
    overlap (the metric ``accuracy`` is near 1) it learns as slowly: fit the base first, or let it
    learn too. In the same step it then follows ``base_loss``, energy and A held constant:

    | None: it is held constant.
    | ``"generalized"``: :math:`-\frac1M \sum_m \zeta(-h(y_m))`. The base plays against the energy
      as a generator against a critic, and moves onto the data, where contrast is hardest. The
      gradient goes through the draws where the base has ``rsample`` and no wider support, else
      through :math:`\log p_0(y_m)`.
    | ``"likelihood"``: :math:`-\log p_0(x)`, as if there were no energy.

    With a flow as base and the energy :math:`E = U + \log p_0`, its base held constant, the model
    is :math:`e^{-U}` wherever the base has moved. ``"generalized"`` is then flow contrastive
    estimation, but for a gradient that vanishes where model and data agree. Base and energy can
    take turns by optimizers that skip steps (``step_when``, ``optax.conditionally_mask``).

    Args:
        num_samples: :math:`M`, draws for each element of the base's batch (usually there is one).
        base_loss: Loss of the base, see above.

    Raises:
        ValueError: If an argument is out of range; in ``loss``, if there is no base to draw from,
            or one without the density that its loss needs, or a log-normalizer of another shape is
            attached.

    References:
        | Noise-contrastive estimation: a new estimation principle for unnormalized statistical
          models (Gutmann and Hyvärinen, 2010)
        | Flow contrastive estimation of energy-based models (Gao et al., 2020),
          https://arxiv.org/abs/1912.00589
    """

    # The host's function that evaluates another one with its parameters held constant.
    _frozen: ClassVar[Any]

    num_samples: int = 1000
    base_loss: str | None = None

    def __post_init__(self) -> None:
        if self.base_loss is not None:
            check_choice("base_loss", self.base_loss, ("generalized", "likelihood"))
        convert_fields(self, num_samples=check_positive_integer)

    def _loss(self, distribution: Any, value: Any, log_normalizer: Any, *rng_key: Any) -> Loss:
        through = self.base_loss == "generalized" and is_reparametrized(distribution)
        draws = draw_from_base(self, distribution.base, *rng_key, through=through)
        if log_normalizer is not None:
            _check_shape(distribution, log_normalizer)
        value, fixed = map(self._constant, (value, draws))
        energies = scaled_energies(distribution, value, fixed)
        constants = [self._constant(energy) for energy in energies]
        shift = 0.0 if log_normalizer is None else log_normalizer
        positive, negative = (energy + shift for energy in energies)
        metrics = {
            "accuracy": lambda counts=None: accuracy(
                self._constant(positive), self._constant(negative), counts
            ),
            **energy_metrics(*constants),
        }
        loss, potential = noise_contrastive(positive, negative), constants[0]
        if not is_implicit(distribution.base):
            potential = potential - self._constant(distribution._base_log_prob(value))
        if self.base_loss is not None:
            of_base = self._of_base(
                distribution, value, draws, self._constant(negative), through=through
            )
            loss = loss + of_base - self._constant(of_base)
        return EvaluatedLoss(loss, metrics, potential)

    def _of_base(
        self, distribution: Any, value: Any, draws: Any, negative: Any, *, through: bool
    ) -> Any:
        """Loss of the base, in which ``negative`` are constants."""
        base = distribution.base
        if self.base_loss == "likelihood":
            check_base_loss(self.base_loss, base)
            return -base.log_prob(value)
        xp = array_namespace(negative)
        if through:
            energies, _ = self._frozen(partial(scaled_energy, distribution), draws)
            negative = negative + energies - self._constant(energies)
        contrast = xp.logaddexp(xp.zeros_like(negative), -negative)
        if not through:
            contrast = contrast * base.log_prob(draws)
        return -xp.mean(contrast, axis=0)


def noise_contrastive(positive: Any, negative: Any) -> Any:
    r"""Compute the logistic loss of values, shape ``(*batch,)``, and of draws of the base.

    Args:
        positive: :math:`h(x)`, shape ``(*batch,)``.
        negative: :math:`h(y_m)`, shape ``(M, *context)``, where ``context`` broadcasts with
            ``batch``.

    Returns:
        Shape ``(*batch,)``; 2 log 2 for h = 0.
    """
    xp = array_namespace(positive, negative)
    of_values = xp.logaddexp(xp.zeros_like(positive), positive)
    return of_values + xp.mean(xp.logaddexp(xp.zeros_like(negative), -negative), axis=0)


def accuracy(positive: Any, negative: Any, counts: Any = None) -> Any:
    """Compute the share of values and draws on their side of zero, each counted as one half."""
    xp = array_namespace(positive, negative)
    values, draws = (xp.astype(side, positive.dtype) for side in (positive < 0, negative > 0))
    of_values, of_draws = count_rows(values, draws, counts)
    return 0.5 * (weighted_mean(values, of_values) + weighted_mean(draws, of_draws))


def _check_shape(distribution: Any, log_normalizer: Any) -> None:
    shape, expected = tuple(log_normalizer.shape), own_shape(distribution)
    if shape not in ((), expected):
        raise ValueError(
            "Expected a scalar `log_normalizer`, or one of the batch shape of base and context, "
            f"{expected}, got shape {shape}."
        )
