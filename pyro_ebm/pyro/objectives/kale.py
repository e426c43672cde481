"""KALE with Pyro."""

from functools import partial
from math import prod
from typing import Any, cast

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor

from pyro_ebm.core.distributions.checks import is_implicit
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives import kale as core
from pyro_ebm.core.objectives.loss import Loss, Metrics
from pyro_ebm.core.objectives.negatives import scaled_energies, weight_metrics
from pyro_ebm.pyro.distributions.bound_energy import frozen_in_parameters
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.objectives.negatives import detached_metrics


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

    def loss(
        self, distribution: EnergyBased, value: Tensor, *, log_normalizer: Tensor | None = None
    ) -> Loss:
        base = distribution.base
        base_loss = core.choose_base_loss(self.base_loss, base)
        core.check_log_normalizer(self.form, log_normalizer, base.batch_shape)
        value = value.detach()
        draws, zero = self._draw(base, core.DIRECTIONS[base_loss])
        if log_normalizer is None:
            loss, negative = scaled_energies(distribution, value, draws)
            metrics = _metrics(loss, negative)
            loss = loss + core.log_partition(negative - zero)
        else:
            loss, negative = scaled_energies(distribution, value, draws.detach())
            partition = core.log_partition(negative)
            lag = (log_normalizer - partition).detach()
            metrics = {**_metrics(loss, negative), "normalizer_lag": lag.mean}
            loss = loss + self._bound(partition, log_normalizer)
            loss = loss + _partition_of_base(distribution, negative, draws, zero)
        if not is_implicit(base):
            log_density = base.log_prob(value)
            loss = loss - (log_density.detach() if base_loss == "generalized" else log_density)
        if self.gradient_penalty:
            penalty = _squared_gradient(distribution, value, draws)
            loss = loss + self.gradient_penalty * penalty
        return Loss(loss, metrics)

    def _draw(self, base: Any, direction: float) -> tuple[Tensor, Tensor | float]:
        """Draws, and a zero whose gradient is that of their log-density.

        Through one of the two the base follows ``direction`` times the log-partition's gradient.
        """
        shape = torch.Size((self.num_samples,))
        goes_through = bool(direction) and base.has_rsample
        try:
            draws = base.rsample(shape) if goes_through else base.sample(shape).detach()
        except NotImplementedError as error:
            raise ValueError(f"Expected a base that can be sampled, got {base}.") from error
        if goes_through:
            return draws.detach() + direction * _zero(draws), 0.0
        if direction and not is_implicit(base):
            return draws, direction * _zero(base.log_prob(draws))
        return draws, 0.0

    def _bound(self, partition: Tensor, log_normalizer: Tensor) -> Tensor:
        """Bound of a log-partition, with the gradient in A that was set."""
        constant = log_normalizer.detach()
        gradient = core.log_normalizer_gradient(
            partition.detach(), constant, safe=self.safe_gradient
        )
        return core.fenchel_bound(partition, constant) + gradient * _zero(log_normalizer)


def _partition_of_base(
    distribution: EnergyBased, negative: Tensor, draws: Tensor, zero: Tensor | float
) -> Tensor:
    """Zero with the base's gradient, whose weights of draws are not those of the bound."""
    negative = negative.detach()
    if draws.requires_grad:
        negative, _ = frozen_in_parameters(partial(scaled_energy, distribution), draws)
    return _zero(core.log_partition(negative - zero))


def _metrics(positive: Tensor, negative: Tensor) -> Metrics:
    return {**detached_metrics((positive, negative)), **weight_metrics(-negative.detach())}


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
