"""Bidirectional bounds with Pyro."""

from typing import Any, cast

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor

from pyro_ebm.core.distributions.checks import check_one_law
from pyro_ebm.core.objectives import bidirectional_bounds as core
from pyro_ebm.core.objectives.generator import volume_options
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.objectives.generator import GeneratorDraws, VariationalGenerator, value_and_slope


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

    def loss(
        self, distribution: EnergyBased, value: Tensor, *, generator: Any, encoder: Any = None
    ) -> Loss:
        check_one_law(distribution)
        value = value.detach()
        options = volume_options(self)
        family = VariationalGenerator.of(distribution, generator, encoder, **options)
        num_values = value.numel() // distribution.event_shape.numel()
        draws = family.compare(distribution, family.draw(self.num_samples or num_values))
        if self.penalty == "data":
            potential, penalty = self._penalize_data(distribution, value)
        else:
            potential, penalty = distribution.potential(value), self._penalize(draws)
        return self._loss(potential, penalty, draws)

    def _penalize(self, draws: GeneratorDraws) -> Tensor | float:
        """Penalty on slopes of the log-ratio, whose gradient goes through the potential's."""
        if not self.penalty_weight:
            return 0.0

        def mean_square(gradient: Tensor) -> Tensor:
            return core.half_squared_norm(draws.slope_at(gradient)).mean()

        with torch.no_grad():  # Numbers alone: a graph in all parameters would be built beside.
            weights, penalty = torch.func.grad_and_value(mean_square)(draws.gradient.detach())
        value, factor = core.hinge(penalty, self.penalty_weight, self.threshold)
        change = (weights * draws.gradient).sum()
        return value + factor * (change - change.detach())

    def _penalize_data(self, distribution: EnergyBased, value: Tensor) -> tuple[Tensor, Tensor]:
        """Potentials of values, and the penalty on their gradients; shapes ``(*batch,)``."""
        potential, gradient = value_and_slope(distribution.potential, value)
        square = cast(Tensor, sum_rightmost(gradient.square(), distribution.event_dim))
        penalty, _ = core.hinge(square, self.penalty_weight, self.threshold)
        return potential, penalty
