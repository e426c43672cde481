"""Maximum likelihood with Pyro."""

from typing import Any

import torch
from torch import Tensor

from pyro_ebm.core.objectives import maximum_likelihood as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.core.objectives.negatives import evaluate_energies, weight_metrics
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.objectives.negatives import detached_metrics


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

    def loss(self, distribution: EnergyBased, value: Tensor) -> Loss:
        draws, log_density = self._draw(distribution.base)
        energies = evaluate_energies(distribution, value.detach(), draws)
        loss = core.maximum_likelihood(energies.positive, energies.negative, log_density)
        weights = weight_metrics(-energies.negative_energy.detach())
        return Loss(loss, {**detached_metrics(energies), **weights})

    @torch.no_grad()
    def _draw(self, base: Any) -> tuple[Tensor, Tensor]:
        """Draws of the base with their log-densities."""
        if base is None:
            raise ValueError("Expected a base to draw from, got base=None.")
        try:
            draws = base.sample((self.num_samples,))
            return draws, base.log_prob(draws)
        except NotImplementedError as error:
            raise ValueError(f"Expected a base with sample and log_prob, got {base}.") from error
