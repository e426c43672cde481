"""Contrastive divergence: maximum likelihood with draws of the model."""

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_choice, check_nonnegative
from pyro_ebm.core.objectives.loss import EvaluatedLoss, Loss
from pyro_ebm.core.objectives.negatives import (
    Negatives,
    acceptance_metrics,
    check_negatives,
    evaluate_energies,
)
from pyro_ebm.core.objectives.settings import convert_fields
from pyro_ebm.core.samplers.run import ShortRun
from pyro_ebm.core.samplers.settings import check_sampler


@dataclass(frozen=True, kw_only=True)
class ContrastiveDivergence(Negatives):
    r"""Objective that lowers the energy of values and raises that of draws of the model.

    .. math::
        \ell(x) = U(x) - \frac1M \sum_{m=1}^M U(x^-_m), \qquad U = E - \log p_0

    The draws come from k steps of a sampler (CD-k). It starts at the values, which needs the fewest
    steps but has the most bias, or at draws of the base. The default is MALA from the data, which
    suits any scale: an unadjusted kernel diverges if its step size is too large, and the energy
    diverges with it. Its moves are at most half the standard deviation of the values, so that draws
    stay near the data early in training. Energy and base are trained together.

    Attach ``chains=PersistentChains(...)`` to continue the chains of the last step (persistent
    contrastive divergence, optionally with a replay buffer), or an array of draws of shape
    ``(num_chains, *event)`` to use as they are. Both must be draws of a single distribution: they
    are refused with a context or a batched base.

    Args:
        sampler: See :class:`~pyro_ebm.core.objectives.negatives.Negatives`; not ``SMC()`` from
            data.
        num_steps: k. Default: from data 20; from the base see there.
        init: Start of the draws, ``"data"`` or ``"base"``; attached chains ignore it.
        num_samples: :math:`M`, see there; from the base alone. From data every value has one draw
            of its own.
        energy_penalty: :math:`\lambda \ge 0` of :math:`\lambda (E(x)^2 + \overline{E(x^-)^2})`,
            which keeps energies near zero; Du and Mordatch use 1 for images.

    Raises:
        TypeError: If ``sampler`` is not a sampler.
        ValueError: If another argument is out of range.

    References:
        | Training products of experts by minimizing contrastive divergence (Hinton, 2002)
        | Training restricted Boltzmann machines using approximations to the likelihood gradient
          (Tieleman, 2008)
        | Implicit generation and modeling with energy-based models (Du and Mordatch, 2019),
          https://arxiv.org/abs/1903.08689
    """

    sampler: Any = None
    num_steps: int | None = None
    init: str = "data"
    num_samples: int | None = None
    energy_penalty: float = 0.0

    def __post_init__(self) -> None:
        check_negatives(self)
        check_choice("init", self.init, ("data", "base"))
        if self.init == "data" and self.sampler is not None:
            check_sampler(self.sampler)
        if self.init == "data" and self.num_samples is not None:
            raise ValueError(
                "Expected `num_samples` with init='base', where draws have no values of their own, "
                f"got {self.num_samples} with init='data'."
            )
        convert_fields(self, energy_penalty=check_nonnegative)

    def _loss(self, distribution: Any, value: Any, draws: ShortRun) -> Loss:
        energies = evaluate_energies(distribution, value, draws.samples)
        loss = contrastive_divergence(energies.positive, energies.negative)
        loss = loss + self.energy_penalty * energies.mean_square
        metrics = {**energies.metrics(self._constant), **acceptance_metrics(draws)}
        return EvaluatedLoss(loss, metrics, energies.positive)


def contrastive_divergence(positive: Any, negative: Any) -> Any:
    r"""Compute a loss whose gradient is that of the negative log-likelihood, shape ``(*batch,)``.

    .. math:: \nabla_\theta (-\log p_\theta(x)) = \nabla U(x) - \mathbb E_{p_\theta}[\nabla U]

    The value does not estimate the likelihood.

    Args:
        positive: :math:`U(x)`, shape ``(*batch,)``.
        negative: :math:`U(x^-_m)` of draws of the model, shape ``(M, *context)``, where
            ``context`` broadcasts with ``batch``.
    """
    xp = array_namespace(positive, negative)
    return positive - xp.mean(negative, axis=0)
