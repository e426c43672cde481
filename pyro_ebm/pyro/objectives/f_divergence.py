"""f-EBM: train an energy by any f-divergence, beside a critic that estimates the log-ratio."""

from typing import Any

import torch
from torch import Tensor

from pyro_ebm.core.checks import check_choice, check_nonnegative, check_positive
from pyro_ebm.core.infer.metrics import record_figures
from pyro_ebm.core.numerics import log_mean_exp
from pyro_ebm.core.objectives.divergences import Divergence, check_divergence, find_divergence
from pyro_ebm.core.objectives.f_divergence import f_divergence
from pyro_ebm.pyro.distributions.bound_energy import evaluate_energy
from pyro_ebm.pyro.objectives.negatives import Compared, Negatives, compare, evaluate_both
from pyro_ebm.pyro.samplers import Sampler

__all__ = ["FDivergence"]


class FDivergence:
    r"""Objective that minimises an f-divergence from the data to the model.

    .. math::
        \min_E \max_H V, \qquad V = \mathbb E_p[f'(e^\ell)] - \mathbb E_q[f^*(f'(e^\ell))] \le
        D_f(p \| q), \qquad \ell = H + E

    Here p is the law of the site's values, q the model and :math:`\ell` an estimate of
    :math:`\log p / q`. The critic H, of the energy's kind, is declared in the guide. One draw from
    the model and one call of either serves both players, who move at once:
    ``SVI`` descends in the energy (and its base) and ascends in the critic. KL is mode-covering
    and, up to a factor that tends to 1, contrastive divergence; reverse KL is mode-seeking;
    Jensen-Shannon and squared Hellinger lie between.

    At a latent site, p is the posterior of the guide averaged over the data: the prior is fitted
    to it under :math:`D_f`. For KL that is maximum-ELBO learning; for any other the parts of the
    loss are not the gradient of one ELBO.

    Args:
        divergence: ``"kl"``, ``"reverse_kl"``, ``"jensen_shannon"``, ``"squared_hellinger"``,
            ``"pearson"``, ``"neyman"``, ``"jeffreys"``, ``"gan"``, an :func:`alpha_divergence`, or
            any other :class:`Divergence`, which is checked here.
        sampler: What draws negatives, from the base; the distribution's own by default. Chains
            that the guide declares, ``auxiliary(..., chains=PersistentChains(...))``, take its
            place; so does an array of exact draws, where the model can be sampled.
        num_steps: Its steps from the start; its own ``num_steps`` by default.
        num_negatives: Draws for each element of the base's batch; by default as many in all as
            there are values.
        gradient: ``"full"``, or ``"covariance"``, which is stable where an energy's mean gradient
            is large beside its variance (an overall scale, many dimensions) and exact for the
            best critic. A larger learning rate of the critic is the other cure.
        energy_penalty: :math:`\lambda \ge 0` of :math:`\lambda (E(x)^2 + \overline{E(x^-)^2})`.
            Nothing else fixes a constant in E that H takes back; 1 for images.
        critic_penalty: The same for the critic.
        log_ratio_bound: :math:`\ell` is clipped to :math:`\pm` this; 5 for images, infinity for
            none.

    Raises:
        TypeError: If ``divergence`` or ``sampler`` is something else.
        ValueError: If an argument is out of range, or a divergence is none.

    Example:
        The critic as the faster player, in Pyro by the name of its parameters:

        >>> def guide(x):  # doctest: +SKIP
        ...     auxiliary("x", critic=critic)
        >>> def rates(name):  # doctest: +SKIP
        ...     return {"lr": 1e-3 if name.startswith("x$critic") else 3e-4}
        >>> loss = EnergyELBO(FDivergence("jensen_shannon", sampler=MALA(0.1)))  # doctest: +SKIP
        >>> svi = SVI(model, guide, pyro.optim.Adam(rates), loss)  # doctest: +SKIP

    References:
        | Training Deep Energy-Based Models with f-Divergence Minimization (Yu et al., 2020)
        | https://arxiv.org/abs/2003.03463
    """

    def __init__(
        self,
        divergence: Divergence | str,
        *,
        sampler: Sampler | None = None,
        num_steps: int | None = None,
        num_negatives: int | None = None,
        gradient: str = "full",
        energy_penalty: float = 0.0,
        critic_penalty: float = 0.0,
        log_ratio_bound: float = 20.0,
    ) -> None:
        self.divergence = find_divergence(divergence)
        check_divergence(self.divergence, torch.linspace(-3.0, 3.0, 25, dtype=torch.float64))
        self.negatives = Negatives(sampler, num_steps, num_negatives)
        self.gradient = check_choice("gradient", gradient, ("full", "covariance"))
        self.energy_penalty = check_nonnegative("energy_penalty", energy_penalty)
        self.critic_penalty = check_nonnegative("critic_penalty", critic_penalty)
        infinite = log_ratio_bound == float("inf")
        self.log_ratio_bound = (
            None if infinite else check_positive("log_ratio_bound", log_ratio_bound)
        )

    def __repr__(self) -> str:
        return (
            f"FDivergence({self.divergence.name!r}, {self.negatives}, gradient={self.gradient!r})"
        )

    def loss(
        self, distribution: Any, value: Tensor, *, critic: Any, chains: Tensor | None = None
    ) -> Tensor:
        """Loss of each value, with gradients for energy and base, and for the critic.

        Args:
            distribution: An energy-based distribution.
            value: Shape ``(*batch, *event)``; held constant.
            critic: H, from ``(N, *event)`` to ``(N,)``.
            chains: Draws of the model to take as they are, shape ``(num_chains, *event)``.

        Returns:
            Shape ``(*batch,)``. Its value is that of V, a lower bound of the divergence in
            expectation where there is no penalty: up while the critic learns, then down.
        """
        value = value.detach()
        negatives = self.negatives.draw(distribution, value, chains)
        compared = compare(distribution, value, negatives)
        critics = evaluate_both(critic, value, negatives, distribution.event_shape)
        return self._play(compared, *critics)

    def log_ratio(self, distribution: Any, value: Tensor, *, critic: Any) -> Tensor:
        r"""The estimate :math:`H + E` of the log of data density to model density, for plots.

        Args:
            distribution: The trained energy-based distribution.
            value: Shape ``(*batch, *event)``.
            critic: The trained critic.

        Returns:
            Shape ``(*batch,)``; zero everywhere for a perfect model.
        """
        critics = evaluate_energy(critic, value, distribution.event_shape)
        return critics + distribution.evaluate(value)

    def _play(self, compared: Compared, positive_critic: Tensor, negative_critic: Tensor) -> Tensor:
        positive = (positive_critic + compared.positive_energy).detach()
        negative = (negative_critic + compared.negative_energy).detach()
        _record(positive, negative, self.log_ratio_bound)
        weights = f_divergence(
            self.divergence,
            positive,
            negative,
            bound=self.log_ratio_bound,
            gradient=self.gradient,
        )
        # The gradient of the base is that of an energy with minus its log-density absorbed.
        loss = (
            weights.positive_energy * compared.positive
            - weights.positive_critic * positive_critic
            + (weights.negative_energy * compared.negative).mean(0)
            + (weights.negative_critic * negative_critic).mean(0)
        )
        penalty = positive_critic.square() + negative_critic.square().mean(0)
        loss = loss + self.energy_penalty * compared.mean_square_energy
        loss = loss + self.critic_penalty * penalty
        return weights.value + loss - loss.detach()


def _record(positive: Tensor, negative: Tensor, bound: float | None) -> None:
    """Figures of a good critic: a log-ratio near zero, and a mean ratio near one."""

    def clipped() -> Tensor:
        both = torch.cat([positive.flatten(), negative.flatten()])
        return (both.abs() > (bound or float("inf"))).to(both).mean()

    record_figures(
        log_ratio_of_data=positive.mean,
        log_ratio_of_negatives=negative.mean,
        mean_ratio=lambda: log_mean_exp(negative.flatten()).exp(),
        clipped=clipped,
    )
