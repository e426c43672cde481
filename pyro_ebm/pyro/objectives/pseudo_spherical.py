"""Pseudo-spherical contrastive divergence with Pyro."""

from torch import Tensor

from pyro_ebm.core.distributions.checks import check_one_distribution
from pyro_ebm.core.objectives import pseudo_spherical as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.objectives.negatives import draw_negatives


class PseudoSpherical(core.PseudoSpherical):
    """Pseudo-spherical contrastive divergence; a masked value has no weight.

    See :class:`pyro_ebm.core.objectives.pseudo_spherical.PseudoSpherical`.

    Example:
        >>> import torch
        >>> from pyro_ebm.pyro.distributions.energy_based import EnergyBased
        >>> slope = EnergyBased(lambda x: x, event_shape=())
        >>> draws = torch.tensor([3.0, 3.0])
        >>> PseudoSpherical(0.5).loss(slope, torch.tensor([1.0, 1.0]), chains=draws).value
        tensor([-2., -2.])
    """

    _constant = staticmethod(Tensor.detach)

    def loss(
        self,
        distribution: EnergyBased,
        value: Tensor,
        *,
        chains: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Loss:
        check_one_distribution(distribution)
        value = value.detach()
        draws = draw_negatives(self, distribution, value, chains)
        return self._loss(distribution, value, draws, weights)
