"""Noise-contrastive estimation: values against draws of the base."""

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.distributions.context import own_shape
from pyro_ebm.core.objectives.loss import Loss, Objective
from pyro_ebm.core.objectives.negatives import draw_from_base, energy_metrics, scaled_energies
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

    It needs neither MCMC nor a density of the base, which is held constant. No weight is
    exponential in the energy, so that it is steadier than ``MaximumLikelihood`` and ``KALE``; but
    where base and data hardly overlap (the metric ``accuracy`` is near 1) it learns as slowly: fit
    the base first.

    Args:
        num_samples: :math:`M`, draws for each element of the base's batch (usually there is one).

    Raises:
        ValueError: If the number is not a positive integer; in ``loss``, if there is no base to
            draw from, or a log-normalizer of another shape is attached.

    References:
        | Noise-contrastive estimation: a new estimation principle for unnormalized statistical
          models (Gutmann and Hyvärinen, 2010)
    """

    num_samples: int = 1000

    def __post_init__(self) -> None:
        convert_fields(self, num_samples=check_positive_integer)

    def _loss(self, distribution: Any, value: Any, log_normalizer: Any, *rng_key: Any) -> Loss:
        draws = draw_from_base(self, distribution.base, *rng_key)
        if log_normalizer is not None:
            _check_shape(distribution, log_normalizer)
        energies = scaled_energies(distribution, self._constant(value), draws)
        constants = [self._constant(energy) for energy in energies]
        shift = 0.0 if log_normalizer is None else log_normalizer
        positive, negative = (energy + shift for energy in energies)
        metrics = {
            "accuracy": lambda: accuracy(self._constant(positive), self._constant(negative)),
            **energy_metrics(*constants),
        }
        return Loss(noise_contrastive(positive, negative), metrics)


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


def accuracy(positive: Any, negative: Any) -> Any:
    """Compute the share of values and draws on their side of zero, each counted as one half."""
    xp = array_namespace(positive, negative)
    shares = [xp.mean(xp.astype(side, positive.dtype)) for side in (positive < 0, negative > 0)]
    return 0.5 * (shares[0] + shares[1])


def _check_shape(distribution: Any, log_normalizer: Any) -> None:
    shape, expected = tuple(log_normalizer.shape), own_shape(distribution)
    if shape not in ((), expected):
        raise ValueError(
            "Expected a scalar `log_normalizer`, or one of the batch shape of base and context, "
            f"{expected}, got shape {shape}."
        )
