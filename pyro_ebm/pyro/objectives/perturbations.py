"""Noise kernels: from a value to noise, and back from noise to values it may have come from."""

import math

import torch
from torch import Tensor

from pyro_ebm.core.checks import check_positive

__all__ = ["GaussianPerturbation"]


class GaussianPerturbation:
    r"""Gaussian noise forward, and the same kernel back.

    .. math:: y = x + \sqrt t\, \xi, \qquad x_j = y + \sqrt t\, \xi_j

    Args:
        variance: :math:`t`, the *variance* of one hop; :math:`x_j - x` has variance :math:`2t`.

    Raises:
        ValueError: If the variance is not a positive number.
    """

    def __init__(self, variance: float) -> None:
        self.variance = check_positive("variance", variance)

    def __repr__(self) -> str:
        return f"GaussianPerturbation(variance={self.variance})"

    def forward(self, x: Tensor) -> Tensor:
        """Noise every value once; shape of ``x``."""
        return x + math.sqrt(self.variance) * torch.randn_like(x)

    def backward(self, y: Tensor, num_negatives: int) -> Tensor:
        """Draw values that may have led to ``y``; shape ``(num_negatives, *y.shape)``."""
        # randn_like follows the layout, dtype and device of y and knows no larger shape.
        noise = torch.randn_like(y.expand((num_negatives, *y.shape)))
        return y + math.sqrt(self.variance) * noise
