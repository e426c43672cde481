"""Bidirectional bounds with Pyro."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_ebm.core.distributions.checks import check_one_distribution
from pyro_ebm.core.objectives import bidirectional_bounds as core
from pyro_ebm.core.objectives.generator import volume_options
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.objectives.generator import VariationalGenerator, value_and_slope


class BidirectionalBounds(core.BidirectionalBounds):
    """Bidirectional bounds by a ``Pushforward``, a transformed distribution or a flow of zuko.

    See :class:`pyro_ebm.core.objectives.bidirectional_bounds.BidirectionalBounds`.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from pyro_ebm.pyro.distributions.energy_based import EnergyBased
        >>> from pyro_ebm.pyro.distributions.pushforward import Pushforward
        >>> exact = Pushforward(dist.Normal(torch.zeros(1), 1.0).to_event(1), lambda z: z)
        >>> bowl = EnergyBased(lambda x: x.square().sum(-1) / 2, event_shape=(1,))
        >>> BidirectionalBounds().loss(bowl, torch.zeros(1, 1), generator=exact).value
        tensor([0.9189])
    """

    _value_and_slope = staticmethod(value_and_slope)

    def loss(
        self, distribution: EnergyBased, value: Tensor, *, generator: Any, encoder: Any = None
    ) -> Loss:
        check_one_distribution(distribution)
        value = value.detach()
        options = volume_options(self)
        family = VariationalGenerator.of(distribution, generator, encoder, **options)
        num_values = value.numel() // distribution.event_shape.numel()
        draws = family.compare(distribution, family.draw(self.num_samples or num_values))
        return self._loss(distribution, value, draws)

    @staticmethod
    def _value_and_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Any:
        with torch.no_grad():
            gradient, value = torch.func.grad_and_value(function)(x.detach())
        return value, gradient
