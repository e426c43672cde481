"""Energy discrepancy with Pyro."""

from torch import Tensor

from pyro_ebm.column_perturbations import neighbors
from pyro_ebm.core.objectives import energy_discrepancy as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.objectives.column_perturbations import kernel_on
from pyro_ebm.pyro.objectives.perturbations import GaussianPerturbation, with_copies
from pyro_ebm.pyro.samplers.target import Target


class EnergyDiscrepancy(core.EnergyDiscrepancy):
    """Energy discrepancy.

    Formula and settings: :class:`pyro_ebm.core.objectives.energy_discrepancy.EnergyDiscrepancy`.

    Example:
        >>> import torch
        >>> from pyro_ebm.pyro.distributions.energy_based import EnergyBased
        >>> flat = EnergyBased(lambda x: 0 * x, event_shape=())
        >>> loss, _ = EnergyDiscrepancy(variance=0.5, num_samples=3).loss(flat, torch.randn(2))
        >>> loss.exp()  # (M + w) / M
        tensor([1.3333, 1.3333])
    """

    _constant = staticmethod(Tensor.detach)

    def loss(self, distribution: EnergyBased, value: Tensor) -> Loss:
        target = Target.of_any(distribution)
        x, kernels = target.position(value).detach(), self._perturbations(GaussianPerturbation)
        if core.is_exact(kernels[0]):
            return self._exact_loss(target.potential(neighbors(target, x)), target)
        kernels = [kernel_on(kernel, target.columns) for kernel in kernels]
        rows = with_copies(x, kernels, self.num_samples)
        return self._loss(target.potential(rows), len(kernels))
