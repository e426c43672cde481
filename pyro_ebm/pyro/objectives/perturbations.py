"""Noise kernels on tensors."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_ebm.core.objectives import perturbations as core


class GaussianPerturbation(core.GaussianPerturbation):
    """Gaussian noise of a given variance, from PyTorch's global generator.

    Settings and protocol: :class:`pyro_ebm.core.objectives.perturbations.GaussianPerturbation`.

    Example:
        >>> import torch
        >>> GaussianPerturbation(0.25).backward(torch.zeros(3, 2), num_samples=4).shape
        torch.Size([4, 3, 2])
    """

    def forward(self, x: Tensor) -> Tensor:
        return x + self.standard_deviation * torch.randn_like(x)

    def backward(self, y: Tensor, num_samples: int) -> Tensor:
        return self._fill(torch.empty_like(y.expand((num_samples, *y.shape))), y)

    def _fill(self, copies: Tensor, y: Tensor) -> Tensor:
        """Draw as many copies as there is memory for, in place."""
        return copies.normal_().mul_(self.standard_deviation).add_(y)


@torch.no_grad()
def with_copies(x: Tensor, kernels: Sequence[Any], num_samples: int) -> Tensor:
    """Values, and ``num_samples`` copies by each kernel; shape ``(1 + K M, *x.shape)``."""
    if any(type(kernel) is not GaussianPerturbation for kernel in kernels):
        copies = [kernel.backward(kernel.forward(x), num_samples) for kernel in kernels]
        return torch.cat([x[None], *copies])
    # Page by page, new memory costs more than the noise: one buffer of the layout of x.
    rows = torch.empty_like(x.expand((1 + len(kernels) * num_samples, *x.shape)))
    rows[0] = x
    for kernel, copies in zip(kernels, rows[1:].split(num_samples), strict=True):
        kernel._fill(copies, kernel.forward(x))
    return rows
