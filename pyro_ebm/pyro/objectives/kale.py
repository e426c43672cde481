"""KALE with Pyro."""

from math import prod
from typing import cast

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor

from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives import kale as core
from pyro_ebm.core.objectives.loss import EvaluatedLoss, Loss
from pyro_ebm.pyro.distributions.bound_energy import frozen_in_parameters
from pyro_ebm.pyro.distributions.energy_based import EnergyBased


class KALE(core.KALE):
    """KALE, for bases with and without a density.

    A flow of zuko is trained with its energy once it is registered by ``pyro.module``.
    See :class:`pyro_ebm.core.objectives.kale.KALE`.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from pyro_ebm.pyro.distributions.energy_based import EnergyBased
        >>> shifted = EnergyBased(lambda x: 0 * x + 5, dist.Normal(0.0, 1.0))
        >>> loss, metrics = KALE(num_samples=100).loss(shifted, torch.zeros(1))
        >>> loss, metrics["effective_sample_size"]().round()
        (tensor([0.9189]), tensor(100.))
    """

    _constant = staticmethod(Tensor.detach)
    _frozen = staticmethod(frozen_in_parameters)
    _shape = torch.Size

    def loss(
        self, distribution: EnergyBased, value: Tensor, *, log_normalizer: Tensor | None = None
    ) -> Loss:
        value = value.detach()
        draws, zero, _ = self._draw(distribution, log_normalizer)
        found = self._loss(
            distribution, value, draws, zero, log_normalizer, through=draws.requires_grad
        )
        if self.gradient_penalty:
            penalty = _squared_gradient(distribution, value, draws)
            loss = found.value + self.gradient_penalty * penalty
            return EvaluatedLoss(loss, found.metrics, found.potential)
        return found


def _squared_gradient(distribution: EnergyBased, value: Tensor, draws: Tensor) -> Tensor:
    """Squared gradient of the energy between each value and a draw; shape ``(*batch,)``."""
    event_dim = distribution.event_dim
    batch_shape = value.shape[: value.ndim - event_dim]
    # Draws are repeated where there are fewer than values.
    row_shape = batch_shape[: value.ndim - draws.ndim + 1]
    rows = torch.arange(prod(row_shape), device=draws.device) % len(draws)
    ends = draws.detach()[rows].reshape((*row_shape, *draws.shape[1:]))
    weights = torch.rand(batch_shape + (1,) * event_dim, dtype=value.dtype, device=value.device)
    between = weights * value + (1 - weights) * ends
    # With torch.func, because a leaf of autograd would stay in the loss as one more parameter.
    gradient = torch.func.grad(lambda x: scaled_energy(distribution, x).sum())(between)
    return cast(Tensor, sum_rightmost(gradient.square(), event_dim))
