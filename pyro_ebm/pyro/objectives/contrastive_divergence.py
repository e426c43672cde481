"""Contrastive divergence with Pyro."""

from torch import Tensor

from pyro_ebm.core.objectives import contrastive_divergence as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.objectives.negatives import draw_negatives, move_data


class ContrastiveDivergence(core.ContrastiveDivergence):
    """Contrastive divergence, from data, from the base or persistent.

    See :class:`pyro_ebm.core.objectives.contrastive_divergence.ContrastiveDivergence`.

    Example:
        >>> import torch
        >>> from pyro_ebm.pyro.distributions.energy_based import EnergyBased
        >>> slope = EnergyBased(lambda x: x, event_shape=())
        >>> draws = torch.tensor([0.0, 2.0])
        >>> ContrastiveDivergence().loss(slope, torch.tensor([4.0]), chains=draws).value
        tensor([3.])
    """

    _constant = staticmethod(Tensor.detach)

    def loss(
        self, distribution: EnergyBased, value: Tensor, *, chains: Tensor | None = None
    ) -> Loss:
        value = value.detach()
        if chains is None and self.init == "data":
            draws = move_data(self, distribution, value)
        else:
            draws = draw_negatives(self, distribution, value, chains)
        return self._loss(distribution, value, draws)
