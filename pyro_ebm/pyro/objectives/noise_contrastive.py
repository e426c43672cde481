"""Noise-contrastive estimation with Pyro."""

from torch import Tensor

from pyro_ebm.core.objectives import noise_contrastive as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.pyro.distributions.bound_energy import frozen_in_parameters
from pyro_ebm.pyro.distributions.energy_based import EnergyBased


class NoiseContrastive(core.NoiseContrastive):
    """Noise-contrastive estimation; attach ``log_normalizer=pyro.param(...)`` to learn log Z.

    See :class:`pyro_ebm.core.objectives.noise_contrastive.NoiseContrastive`.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from pyro_ebm.pyro.distributions.energy_based import EnergyBased
        >>> flat = EnergyBased(lambda x: 0 * x, dist.Normal(0.0, 1.0))
        >>> NoiseContrastive(num_samples=10).loss(flat, torch.zeros(2)).value
        tensor([1.3863, 1.3863])
    """

    _constant = staticmethod(Tensor.detach)
    _frozen = staticmethod(frozen_in_parameters)

    def loss(
        self, distribution: EnergyBased, value: Tensor, *, log_normalizer: Tensor | None = None
    ) -> Loss:
        return self._loss(distribution, value, log_normalizer)
