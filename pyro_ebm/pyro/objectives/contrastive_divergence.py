"""Contrastive divergence: train an energy against draws of the model."""

from typing import Any

from torch import Tensor

from pyro_ebm.core.checks import check_choice, check_nonnegative
from pyro_ebm.core.objectives.contrastive_divergence import contrastive_divergence
from pyro_ebm.pyro.objectives.negatives import Negatives, compare
from pyro_ebm.pyro.samplers import Sampler

__all__ = ["ContrastiveDivergence"]


class ContrastiveDivergence:
    r"""Objective that lowers the energy of values and raises that of draws of the model.

    .. math::
        \ell(x) = U(x) - \frac1M \sum_{m=1}^M U(x^-_m), \qquad U = E - \log p_0

    The draws come from k steps of a sampler (CD-k): from the values themselves, which needs the
    fewest steps and is the most biased, or from the base. With chains that the guide declares,
    ``auxiliary("x", chains=PersistentChains(...))``, they go on from where they were in the last
    step (persistent contrastive divergence, and a replay buffer). Energy and base are trained
    together.

    Args:
        sampler: What moves the draws; the distribution's own by default. Its bias is the model's.
        num_steps: k, its steps from the start; its own ``num_steps`` by default.
        start: ``"data"`` or ``"base"``; chains have their own.
        num_negatives: :math:`M` from the base, for each element of the base's batch; by default
            as many in all as there are values. From data, each value has its own draw.
        energy_penalty: :math:`\lambda \ge 0` of :math:`\lambda (E(x)^2 + \overline{E(x^-)^2})`,
            which keeps energies near zero; Du and Mordatch have 1 for images.

    Raises:
        TypeError: If ``sampler`` is no sampler.
        ValueError: If another argument is out of range.

    References:
        | Training products of experts by minimizing contrastive divergence (Hinton, 2002)
        | Training restricted Boltzmann machines using approximations to the likelihood gradient
          (Tieleman, 2008)
        | Implicit generation and modeling with energy-based models (Du and Mordatch, 2019)
        | https://arxiv.org/abs/1903.08689
    """

    def __init__(
        self,
        *,
        sampler: Sampler | None = None,
        num_steps: int | None = None,
        start: str = "base",
        num_negatives: int | None = None,
        energy_penalty: float = 0.0,
    ) -> None:
        self.negatives = Negatives(sampler, num_steps, num_negatives)
        self.start = check_choice("start", start, ("data", "base"))
        self.energy_penalty = check_nonnegative("energy_penalty", energy_penalty)

    def __repr__(self) -> str:
        return (
            f"ContrastiveDivergence({self.negatives}, start={self.start!r}, "
            f"energy_penalty={self.energy_penalty})"
        )

    def loss(self, distribution: Any, value: Tensor, *, chains: Tensor | None = None) -> Tensor:
        """Loss of each value, differentiable in the parameters of energy and base.

        Args:
            distribution: An energy-based distribution.
            value: Shape ``(*batch, *event)``; held constant.
            chains: Draws of the model to take as they are, shape ``(num_chains, *event)``.

        Returns:
            Shape ``(*batch,)``.
        """
        value = value.detach()
        compared = compare(distribution, value, self._draw(distribution, value, chains))
        loss = contrastive_divergence(compared.positive, compared.negative)
        return loss + self.energy_penalty * compared.mean_square_energy

    def _draw(self, distribution: Any, value: Tensor, chains: Tensor | None) -> Tensor:
        if chains is None and self.start == "data":
            return self.negatives.move(distribution, value)[None]
        return self.negatives.draw(distribution, value, chains)
