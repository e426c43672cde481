"""Noise kernels on tensors."""

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
        # randn_like follows the layout, dtype and device of y and knows no larger shape.
        noise = torch.randn_like(y.expand((num_samples, *y.shape)))
        return y + self.standard_deviation * noise
