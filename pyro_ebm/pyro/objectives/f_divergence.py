"""f-divergence minimization with Pyro."""

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_ebm.core.objectives import divergences
from pyro_ebm.core.objectives import f_divergence as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.objectives.negatives import draw_negatives

Function = Callable[[Tensor], Tensor]


class FDivergence(core.FDivergence):
    """f-EBM; the critic's parameters have names that begin with ``site$critic``.

    See :class:`pyro_ebm.core.objectives.f_divergence.FDivergence`.

    Example:
        >>> import torch
        >>> from pyro_ebm.pyro.distributions.energy_based import EnergyBased
        >>> le_cam = FDivergence(lambda u: (u - 1) ** 2 / (u + 1))
        >>> x, model = torch.randn(5), EnergyBased(lambda x: x, event_shape=())
        >>> le_cam.loss(model, x, critic=lambda x: -x, chains=x).value  # V = 0 at H + E = 0
        tensor([0., 0., 0., 0., 0.])
    """

    _constant = staticmethod(Tensor.detach)

    def __post_init__(self) -> None:
        super().__post_init__()
        if divergences.find_divergence(self.f) is None:
            divergences.check_function(
                self.divergence, torch.linspace(-3.0, 3.0, 25, dtype=torch.float64)
            )

    def loss(
        self,
        distribution: EnergyBased,
        value: Tensor,
        *,
        critic: Function,
        chains: Tensor | None = None,
    ) -> Loss:
        value = value.detach()
        draws = draw_negatives(self, distribution, value, chains)
        return self._loss(distribution, value, draws, critic)

    @staticmethod
    def _derivative(function: Function) -> Function:
        return torch.func.grad(lambda u: function(u).sum())
