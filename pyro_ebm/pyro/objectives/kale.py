"""KALE with Pyro."""

from functools import partial

import torch
from torch import Tensor

from pyro_ebm.core.objectives import kale as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.core.objectives.negatives import points_between
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
    # With torch.func, because a leaf of autograd would stay in the loss as one more parameter.
    _gradient = staticmethod(torch.func.grad)
    _shape = torch.Size

    def loss(
        self, distribution: EnergyBased, value: Tensor, *, log_normalizer: Tensor | None = None
    ) -> Loss:
        value = value.detach()
        draws, zero, _ = self._draw(distribution, log_normalizer)
        found = self._loss(
            distribution, value, draws, zero, log_normalizer, through=draws.requires_grad
        )
        if not self.gradient_penalty:
            return found
        uniform = partial(torch.rand, dtype=value.dtype, device=value.device)
        between = points_between(value, draws.detach(), distribution.event_dim, uniform)
        return self._penalized(found, distribution, between)
