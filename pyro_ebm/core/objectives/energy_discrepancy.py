"""Energy discrepancy: training by energies of values and of perturbed copies alone."""

import math
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_nonnegative, check_positive, check_positive_integer
from pyro_ebm.core.numerics import logsumexp
from pyro_ebm.core.objectives.loss import Loss, Objective
from pyro_ebm.core.objectives.negatives import energy_metrics
from pyro_ebm.core.objectives.perturbations import check_perturbation
from pyro_ebm.core.objectives.settings import convert_fields, optional


@dataclass(frozen=True, kw_only=True)
class EnergyDiscrepancy(Objective):
    r"""Objective that compares the potential of a value with those of perturbed copies.

    .. math::
        \ell(x) = \log\Big( \frac{w}{M} + \frac1M \sum_{j=1}^M e^{U(x) - U(x_j)} \Big), \qquad
        y = x + \sqrt t\, \xi, \quad x_j = y + \sqrt t\, \xi_j, \quad U = E - \log p_0

    A value is perturbed once to y, and M copies are drawn back from y. One call of the energy on
    M + 1 values for each data point; no gradient of the energy and no MCMC. Energy and base are
    trained together. On a constrained support the noise is added in unconstrained space.

    Args:
        variance: :math:`t`, the *variance* of one hop of Gaussian noise (some papers give the
            standard deviation). Try 0.5 to 1 times the squared distance between modes.
        num_samples: :math:`M`, copies of each value; raise it with the variance.
        stabilization: :math:`w \ge 0`. At 1 the minimizer is exact for every M. At 0 training can
            diverge unless M is large.
        perturbation: Noise kernel with ``forward`` and ``backward``, in place of ``variance``;
            see :class:`~pyro_ebm.core.objectives.perturbations.GaussianPerturbation`.

    Raises:
        TypeError: If ``perturbation`` is no noise kernel.
        ValueError: If a number is out of range, or not exactly one of ``variance`` and
            ``perturbation`` is given.

    References:
        | Energy Discrepancies: A Score-Independent Loss for Energy-Based Models
          (Schroder et al., 2023), https://arxiv.org/abs/2307.06431
    """

    variance: float | None = None
    num_samples: int = 16
    stabilization: float = 1.0
    perturbation: Any = None

    def __post_init__(self) -> None:
        if (self.variance is None) == (self.perturbation is None):
            given = "neither" if self.variance is None else "both"
            raise ValueError(f"Expected one of `variance` and `perturbation`, got {given}.")
        if self.perturbation is not None:
            check_perturbation("perturbation", self.perturbation)
        convert_fields(
            self,
            variance=optional(check_positive),
            num_samples=check_positive_integer,
            stabilization=check_nonnegative,
        )

    def _loss(self, potential: Any) -> Loss:
        """Loss from potentials of values, first, and of their copies, shape ``(1 + M, *batch)``."""
        positive, negative = potential[0, ...], potential[1:, ...]
        loss = energy_discrepancy(positive, negative, self.stabilization)
        return Loss(loss, energy_metrics(self._constant(positive), self._constant(negative)))


def energy_discrepancy(positive: Any, negative: Any, stabilization: float) -> Any:
    r"""Compute the energy discrepancy :math:`\ell` of each data point, shape ``(*batch,)``.

    With :math:`w = 1` the minimizer is exactly :math:`-\log p`, up to a constant, for every M;
    smaller :math:`w` sharpens the fit and larger :math:`w` flattens it. The authors' code omits
    :math:`-\log M`, which shifts the value and changes no gradient. A constant energy gives
    :math:`\log((M + w)/M)`.

    Args:
        positive: :math:`U(x)`, shape ``(*batch,)``.
        negative: :math:`U(x_j)`, shape ``(M, *batch)``. Plus infinity (outside the support)
            counts as a zero term.
        stabilization: :math:`w \ge 0`.
    """
    xp = array_namespace(positive, negative)
    terms = positive[None, ...] - negative
    # log 0 would be a term of its own with a NaN gradient.
    if stabilization > 0:
        constant = xp.full_like(terms[:1, ...], math.log(stabilization))
        terms = xp.concat([terms, constant], axis=0)
    return logsumexp(terms) - math.log(negative.shape[0])
