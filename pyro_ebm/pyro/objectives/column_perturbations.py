"""Noise on columns of codes and numbers, as tensors."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_ebm import column_perturbations as core


def kernel_on(perturbation: Any, columns: Any) -> Any:
    """Return noise on tensors for a target with these columns, or None."""
    return core.kernel_on(perturbation, columns, _Walks, _Masks)


@dataclass(frozen=True)
class _Walks:
    """Independent noise on each column, the same forward and backward."""

    tables: np.ndarray
    deviations: np.ndarray

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, len(self.tables))
        uniform = torch.rand(flat.shape, device=x.device)
        moved = self._walk(flat, uniform).to(x)
        if x.is_floating_point() and self.deviations.any():
            deviations = torch.as_tensor(self.deviations).to(x)
            noisy = flat + deviations * torch.randn_like(flat)
            moved = torch.where(deviations > 0, noisy, moved)
        return moved.reshape(x.shape)

    def _walk(self, flat: Tensor, uniform: Tensor) -> Tensor:
        """Codes after the noise, from those before it and uniform numbers, ``(N, num_columns)``."""
        tables, size = torch.as_tensor(self.tables).to(uniform), self.tables.shape[-1]
        if size == 2:  # One threshold each.
            return uniform > torch.where(flat >= 1, tables[:, 1, 0], tables[:, 0, 0])
        codes = flat.long().clamp(0, size - 1)
        rows = tables[torch.arange(len(tables), device=flat.device), codes]
        return (uniform[..., None] > rows[..., :-1]).sum(-1)

    def backward(self, y: Tensor, num_samples: int) -> Tensor:
        return self.forward(y.expand((num_samples, *y.shape)))


@dataclass(frozen=True)
class _Masks:
    """Columns that are masked, and drawn anew."""

    perturbation: core.Masking | core.MaskOne
    sizes: np.ndarray

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        flat = x.reshape(-1, len(self.sizes))
        if isinstance(self.perturbation, core.Masking):
            masked = torch.rand(flat.shape, device=x.device) < self.perturbation.share
        else:
            chosen = torch.randint(len(self.sizes), (len(flat), 1), device=x.device)
            masked = torch.arange(len(self.sizes), device=x.device) == chosen
        return x, masked.reshape(x.shape)

    def backward(self, y: tuple[Tensor, Tensor], num_samples: int) -> Tensor:
        x, masked = y
        shape = num_samples, x.numel() // len(self.sizes), len(self.sizes)
        uniform = torch.rand(shape, device=x.device)
        codes = (uniform * torch.as_tensor(self.sizes).to(uniform)).floor().to(x)
        return torch.where(masked, codes.reshape((num_samples, *x.shape)), x)
