"""Energy discrepancy: train an energy by its values, without scores and without MCMC."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to

from pyro_ebm.core.checks import check_nonnegative, check_positive_integer
from pyro_ebm.core.objectives.energy_discrepancy import energy_discrepancy
from pyro_ebm.pyro.objectives.perturbations import GaussianPerturbation
from pyro_ebm.pyro.samplers.target import unconstrained_potential

__all__ = ["EnergyDiscrepancy"]


class EnergyDiscrepancy:
    r"""Objective that compares a value's energy with those of perturbed copies of it.

    .. math::
        \ell(x) = \log\Big( \frac{w}{M} + \frac1M \sum_{j=1}^M e^{U(x) - U(x_j)} \Big), \qquad
        y = x + \sqrt t\, \xi, \quad x_j = y + \sqrt t\, \xi_j, \quad U = E - \log p_0

    It costs one call of the energy on M + 1 values for each data point. Energy and base are
    trained together. On a constrained support the noise is added in unconstrained space.

    Args:
        variance: :math:`t`, the *variance* of one hop of Gaussian noise (some papers give the
            standard deviation). About (0.5 to 1) times the squared distance between modes.
        num_negatives: :math:`M`, perturbed copies of each value; raise it with the variance.
        stabilization: :math:`w`. At 1 the minimiser is exact for every M; at 0 training may
            diverge unless M is large.
        perturbation: Noise kernel with ``forward`` and ``backward``, in the place of ``variance``.

    Raises:
        ValueError: If an argument is out of range, or if not exactly one of ``variance`` and
            ``perturbation`` is given.

    References:
        | Energy Discrepancies: A Score-Independent Loss for Energy-Based Models
          (Schroder et al., 2023)
        | https://arxiv.org/abs/2307.06431
    """

    def __init__(
        self,
        *,
        variance: float | None = None,
        num_negatives: int = 16,
        stabilization: float = 1.0,
        perturbation: Any = None,
    ) -> None:
        if (variance is None) == (perturbation is None):
            given = "neither" if variance is None else "both"
            raise ValueError(f"Expected one of `variance` and `perturbation`, got {given}.")
        self.perturbation = perturbation if variance is None else GaussianPerturbation(variance)
        self.num_negatives = check_positive_integer("num_negatives", num_negatives)
        self.stabilization = check_nonnegative("stabilization", stabilization)

    def __repr__(self) -> str:
        return (
            f"EnergyDiscrepancy(perturbation={self.perturbation}, "
            f"num_negatives={self.num_negatives}, stabilization={self.stabilization})"
        )

    def loss(self, distribution: Any, value: Tensor) -> Tensor:
        """Loss of each value, differentiable in the parameters of energy and base.

        Args:
            distribution: An energy-based distribution.
            value: Shape ``(*batch, *event)``; held constant.

        Returns:
            Shape ``(*batch,)``.
        """
        x = biject_to(distribution.support).inv(value).detach()
        with torch.no_grad():
            y = self.perturbation.forward(x)
            negatives = self.perturbation.backward(y, self.num_negatives)
        potential = unconstrained_potential(distribution)(torch.cat([x[None], negatives]))
        return energy_discrepancy(potential[0], potential[1:], self.stabilization)
