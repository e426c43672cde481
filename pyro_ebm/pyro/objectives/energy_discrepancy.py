"""Energy discrepancy with Pyro."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyro_ebm.column_perturbations import neighbors
from pyro_ebm.core.objectives import energy_discrepancy as core
from pyro_ebm.core.objectives.loss import EvaluatedLoss, Loss
from pyro_ebm.pyro.distributions.bound_energy import kept_buffers
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
        if len(self._chunks()) > 1:
            positive, loss = self._in_chunks(distribution, x, kernels)
        else:
            potential = target.potential(with_copies(x, kernels, self.num_samples))
            positive, loss = potential[0], self._loss(potential, len(kernels))
        # Potentials of positions are those of values where one is the other.
        return EvaluatedLoss(*loss, positive if target.is_unconstrained else None)

    def _in_chunks(
        self, distribution: EnergyBased, x: Tensor, kernels: Sequence[Any]
    ) -> tuple[Tensor, Loss]:
        """Potentials of values, and the loss by chunks of copies, drawn again for gradients."""
        sizes, evaluate = self._chunks(), partial(checkpoint, use_reentrant=False)
        positive = Target.of_any(distribution).potential(x)
        with torch.no_grad():
            noisy = [kernel.forward(x) for kernel in kernels]
        chunks = [
            evaluate(_evaluate_chunk, distribution, kernel, y, size)
            for kernel, y in zip(kernels, noisy, strict=True)
            for size in sizes
        ]
        minima, negative = zip(*chunks, strict=True)
        minima = torch.stack(minima).unflatten(0, (len(kernels), len(sizes)))
        return positive, self._mean_loss(positive, minima, torch.cat(negative))


def _evaluate_chunk(
    distribution: EnergyBased, kernel: Any, y: Any, size: int
) -> tuple[Tensor, Tensor]:
    """Soft minimum over copies, with gradients, and potentials of each as constants."""
    with torch.no_grad():
        copies = kernel.backward(y, size)
    # The second time must be as the first.
    with kept_buffers(distribution.energy):
        potential = Target.of_any(distribution).potential(copies)
    return core.soft_minimum(potential), potential.detach()
