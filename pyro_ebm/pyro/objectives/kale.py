"""KALE with Pyro."""

from math import prod
from typing import Any, cast

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor

from pyro_ebm.core.distributions.checks import is_implicit
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives import kale as core
from pyro_ebm.core.objectives.loss import Loss
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

    def loss(
        self, distribution: EnergyBased, value: Tensor, *, log_normalizer: Tensor | None = None
    ) -> Loss:
        base = distribution.base
        base_loss = core.choose_base_loss(self.base_loss, base)
        core.check_log_normalizer(self.form, log_normalizer, base.batch_shape)
        value = value.detach()
        direction = core.DIRECTIONS[base_loss]
        through = bool(direction) and core.is_reparametrized(distribution)
        draws, zero = self._draw(base, direction, through=through)
        loss, metrics = self._loss(
            distribution, value, draws, zero, log_normalizer, through=draws.requires_grad
        )
        if self.gradient_penalty:
            penalty = _squared_gradient(distribution, value, draws)
            loss = loss + self.gradient_penalty * penalty
        return Loss(loss, metrics)

    def _draw(self, base: Any, direction: float, *, through: bool) -> tuple[Tensor, Tensor | float]:
        """Draws, and a zero whose gradient is that of their log-density.

        Through one of the two the base follows ``direction`` times the log-partition's gradient.
        """
        shape = torch.Size((self.num_samples,))
        try:
            draws = base.rsample(shape) if through else base.sample(shape).detach()
        except NotImplementedError as error:
            raise ValueError(f"Expected a base that can be sampled, got {base}.") from error
        if through:
            return draws.detach() + direction * _zero(draws), 0.0
        if direction and not is_implicit(base):
            return draws, direction * _zero(base.log_prob(draws))
        return draws, 0.0


def _zero(x: Tensor) -> Tensor:
    """Zero, with the gradient of x."""
    return x - x.detach()


def _squared_gradient(distribution: EnergyBased, value: Tensor, draws: Tensor) -> Tensor:
    """Squared gradient of the energy between each value and a draw; shape ``(*batch,)``."""
    event_dim = distribution.event_dim
    batch_shape = value.shape[: value.ndim - event_dim]
    # Draws are repeated where there are fewer than values.
    row_shape = batch_shape[: value.ndim - draws.ndim + 1]
    rows = torch.arange(prod(row_shape), device=draws.device) % len(draws)
    ends = draws.detach()[rows].reshape(*row_shape, *draws.shape[1:])
    weights = torch.rand(batch_shape + (1,) * event_dim, dtype=value.dtype, device=value.device)
    between = weights * value + (1 - weights) * ends
    # With torch.func, because a leaf of autograd would stay in the loss as one more parameter.
    gradient = torch.func.grad(lambda x: scaled_energy(distribution, x).sum())(between)
    return cast(Tensor, sum_rightmost(gradient.square(), event_dim))
