"""Maximum likelihood with Pyro."""

from torch import Tensor

from pyro_ebm.core.objectives import maximum_likelihood as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.pyro.distributions.energy_based import EnergyBased


class MaximumLikelihood(core.MaximumLikelihood):
    """Negative log-likelihood, normalized by draws of the base.

    See :class:`pyro_ebm.core.objectives.maximum_likelihood.MaximumLikelihood`.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from pyro_ebm.pyro.distributions.energy_based import EnergyBased
        >>> normal = EnergyBased(lambda x: 0 * x, dist.Normal(0.0, 1.0))
        >>> MaximumLikelihood(num_samples=10).loss(normal, torch.zeros(2)).value
        tensor([0.9189, 0.9189])
    """

    _constant = staticmethod(Tensor.detach)

    def loss(self, distribution: EnergyBased, value: Tensor) -> Loss:
        return self._loss(distribution, value)
