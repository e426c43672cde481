"""Noise on columns of codes and numbers, as tensors."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_ebm import column_perturbations as core
from pyro_ebm.core.objectives.perturbations import check_continuous


def kernel_on(perturbation: Any, columns: Any) -> Any:
    """Return noise with ``forward`` and ``backward``, on a target with these columns or None."""
    if not isinstance(perturbation, core.ColumnPerturbation):
        return check_continuous(perturbation, columns)
    core.check_has_columns(perturbation, columns)
    if isinstance(perturbation, core.Masking | core.MaskOne):
        return _Masks(perturbation, torch.as_tensor(core.check_codes(perturbation, columns)))
    return _Walks(*map(torch.as_tensor, core.walks(perturbation, columns)))


@dataclass(frozen=True)
class _Walks:
    """Independent noise on each column, the same forward and backward."""

    tables: Tensor
    deviations: Tensor

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, len(self.tables))
        uniform = torch.rand(flat.shape, device=x.device)
        column = torch.arange(len(self.tables), device=x.device)
        rows = self.tables.to(uniform)[column, flat.long().clamp(0, self.tables.shape[-1] - 1)]
        moved = (uniform[..., None] > rows[..., :-1]).sum(-1).to(x)
        if x.is_floating_point():
            deviations = self.deviations.to(x)
            noisy = flat + deviations * torch.randn_like(flat)
            moved = torch.where(deviations > 0, noisy, moved)
        return moved.reshape(x.shape)

    def backward(self, y: Tensor, num_samples: int) -> Tensor:
        return self.forward(y.expand((num_samples, *y.shape)))


@dataclass(frozen=True)
class _Masks:
    """Columns that are masked, and drawn anew."""

    perturbation: core.Masking | core.MaskOne
    sizes: Tensor

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
        uniform = torch.rand((num_samples, x.numel() // len(self.sizes), len(self.sizes)))
        codes = (uniform.to(x.device) * self.sizes.to(x.device)).floor().to(x)
        return torch.where(masked, codes.reshape((num_samples, *x.shape)), x)
