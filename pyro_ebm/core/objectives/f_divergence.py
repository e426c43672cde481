"""f-divergence minimization: an energy and a critic play for the density ratio."""

from dataclasses import KW_ONLY, dataclass
from math import inf
from typing import Any, ClassVar, NamedTuple

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_choice, check_nonnegative, check_positive
from pyro_ebm.core.distributions.context import evaluate, evaluate_both
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives.divergences import (
    Divergence,
    check_f,
    find_divergence,
    from_function,
)
from pyro_ebm.core.objectives.loss import EvaluatedLoss, Loss, Metrics
from pyro_ebm.core.objectives.negatives import (
    Energies,
    Negatives,
    acceptance_metrics,
    check_negatives,
    count_rows,
    evaluate_energies,
    joined,
    mean_square,
    weighted_mean,
)
from pyro_ebm.core.objectives.settings import convert_fields
from pyro_ebm.core.samplers.run import ShortRun


@dataclass(frozen=True)
class FDivergence(Negatives):
    r"""Objective that minimizes an f-divergence from data to model (f-EBM).

    .. math::
        \min_E \max_H V, \qquad V = \mathbb E_p[f'(e^\ell)] - \mathbb E_q[f^*(f'(e^\ell))] \le
        D_f(p \| q) = \mathbb E_q\big[f(p / q)\big], \qquad \ell = H + E

    Here p is the distribution of the site's values, q the model and :math:`\ell` an estimate of
    :math:`\log p / q`. Attach the critic H, from ``(N, *event)`` to ``(N,)``, in the guide:
    ``attach("x", critic=H)``. Draws of the model and one call of each network serve both players,
    who move at once: ``SVI`` descends in the energy (and its base) and ascends in the critic.
    KL covers modes and is, up to a factor that tends to 1, contrastive divergence; reverse KL
    seeks modes; Jensen-Shannon and squared Hellinger lie between.

    The value of the loss is V, in expectation a lower bound of the divergence where there is no
    penalty: it rises while the critic learns, then falls.

    At a latent site p is the guide's posterior averaged over the data, to which the prior is
    fitted under :math:`D_f`. For KL this is maximum-ELBO learning; for other divergences the
    parts of the loss are not the gradient of one ELBO.

    Attached ``chains=PersistentChains(...)`` replace the draws from the base, as in contrastive
    divergence; so does an array of exact draws where the model can be sampled.

    Args:
        f: ``"kl"``, ``"reverse_kl"``, ``"jensen_shannon"``, ``"squared_hellinger"``,
            ``"pearson"``, ``"neyman"``, ``"jeffreys"`` or ``"gan"``; an :func:`alpha_divergence`;
            or a convex function of arrays of positive numbers in the host's arithmetic, such as
            ``lambda u: (u - 1) ** 2 / (u + 1)``, whose derivatives autodiff finds. For such a
            function :math:`f^*(f')` is a difference of terms of size :math:`e^\ell`: in single
            precision set ``log_ratio_bound`` to 10 or less.
        sampler: See :class:`~pyro_ebm.core.objectives.negatives.Negatives`.
        num_steps: See there.
        num_samples: See there.
        gradient: ``"full"``, or ``"covariance"``, which is stable where an energy's mean gradient
            is large beside its variance (an overall scale, many dimensions) and exact for the
            best critic. A larger learning rate of the critic is the other cure.
        energy_penalty: :math:`\lambda \ge 0` of :math:`\lambda (E(x)^2 + \overline{E(x^-)^2})`.
            Nothing else fixes a constant in E that H can take back; 1 for images.
        critic_penalty: The same for the critic.
        log_ratio_bound: :math:`\ell` is clipped to :math:`\pm` this; 5 for images, infinity for
            no bound. The metric ``clipped`` is the share of clipped values.

    Raises:
        TypeError: If ``f`` or ``sampler`` is something else.
        ValueError: If an argument is out of range, or a function is not finite and convex.

    References:
        | Training Deep Energy-Based Models with f-Divergence Minimization (Yu et al., 2020),
          https://arxiv.org/abs/2003.03463
    """

    # The host's derivative of an elementwise function.
    _derivative: ClassVar[Any]

    f: Any
    _: KW_ONLY
    sampler: Any = None
    num_steps: int | None = None
    num_samples: int | None = None
    gradient: str = "full"
    energy_penalty: float = 0.0
    critic_penalty: float = 0.0
    log_ratio_bound: float = 20.0

    def __post_init__(self) -> None:
        check_f(self.f)
        check_negatives(self)
        check_choice("gradient", self.gradient, ("full", "covariance"))
        penalties = {"energy_penalty": check_nonnegative, "critic_penalty": check_nonnegative}
        convert_fields(self, log_ratio_bound=_check_bound, **penalties)

    def log_ratio(self, distribution: Any, value: Any, *, critic: Any) -> Any:
        r"""Estimate the log of data density to model density, :math:`H + E`.

        Args:
            distribution: The trained :class:`EnergyBased`.
            value: Shape ``(*batch, *event)``.
            critic: The trained critic.

        Returns:
            Shape ``(*batch,)``; zero everywhere for a perfect model.
        """
        critics = evaluate(distribution, critic, value)
        return critics + scaled_energy(distribution, value)

    @property
    def divergence(self) -> Divergence:
        """Functions of the log-ratio; those of a user's function by derivatives of the host."""
        return find_divergence(self.f) or from_function(self.f, self._derivative)

    def _loss(self, distribution: Any, value: Any, draws: ShortRun, critic: Any) -> Loss:
        energies = evaluate_energies(distribution, value, draws.samples)
        critics = evaluate_both(distribution, critic, value, draws.samples)
        positive = self._constant(critics[0] + energies.positive_energy)
        negative = self._constant(critics[1] + energies.negative_energy)
        options = {"bound": self.log_ratio_bound, "gradient": self.gradient}
        weights = f_divergence(self.divergence, positive, negative, **options)
        loss = weighted_loss(weights, energies, *critics)
        loss = loss + self.energy_penalty * energies.mean_square
        loss = loss + self.critic_penalty * mean_square(*critics)
        ratios = log_ratio_metrics(positive, negative, self.log_ratio_bound)
        metrics = {**energies.metrics(self._constant), **ratios, **acceptance_metrics(draws)}
        value_of_game = weights.value + loss - self._constant(loss)
        return EvaluatedLoss(value_of_game, metrics, energies.positive)


class FDivergenceWeights(NamedTuple):
    r"""Weights of energy E and critic H; see :func:`f_divergence`.

    Attributes:
        positive_energy: Weights of :math:`E(x^+)`, shape ``(*batch,)``.
        positive_critic: Weights of :math:`H(x^+)`, shape ``(*batch,)``.
        negative_energy: Weights of :math:`E(x^-_m)`, shape ``(M, *context)``.
        negative_critic: Weights of :math:`H(x^-_m)`, shape ``(M, *context)``.
        value: :math:`a(\ell^+) - \frac1M \sum_m b(\ell^-_m)`, shape ``(*batch,)``. Its mean over
            the data estimates V.
    """

    positive_energy: Any
    positive_critic: Any
    negative_energy: Any
    negative_critic: Any
    value: Any


def f_divergence(
    divergence: Divergence,
    positive: Any,
    negative: Any,
    *,
    bound: float = inf,
    gradient: str = "full",
) -> FDivergenceWeights:
    r"""Compute weights of energy and critic in a loss that trains both, from M draws of the model.

    .. math::
        V = \mathbb E_p[a(\ell)] - \mathbb E_q[b(\ell)], \qquad
        a = f'(e^\ell), \quad b = f^*(f'(e^\ell))

    is largest over H at :math:`\ell = \log p / q`. With all weights held constant, the gradient of

    .. math::
        v^+ E(x^+) - w^+ H(x^+) + \frac1M \sum_m v^-_m E(x^-_m) + \frac1M \sum_m w^-_m H(x^-_m)

    in the parameters of E is an unbiased estimate of that of V, which descends; in those of H it
    is minus that of V, which ascends. The weights, with derivatives in :math:`\ell`, are

    .. math::
        v^+ = w^+ = a'(\ell^+), \qquad w^-_m = b'(\ell^-_m), \qquad
        v^-_m = \frac{M}{M-1}\Big(b(\ell^-_m) - \frac1M \sum_k b(\ell^-_k)\Big) - b'(\ell^-_m)

    The first term of :math:`v^-` is the covariance of b and :math:`\nabla E` under q, by which the
    distribution of the draws depends on E. The authors' code lacks the factor M/(M - 1), which
    removes the bias of the product of two means.

    Args:
        divergence: Functions a and b with their derivatives.
        positive: :math:`\ell^+` of data, shape ``(*batch,)``.
        negative: :math:`\ell^-` of draws of the model, shape ``(M, *context)``, where ``context``
            broadcasts with ``batch`` (empty unless the energy is conditional).
        bound: All functions are taken of :math:`\ell` clipped to :math:`\pm` this, which keeps
            :math:`b' = e^\ell a'` beyond.
        gradient: ``"full"``, or ``"covariance"`` for the covariance alone in the gradient of E
            (:math:`v^+ = 0` and no :math:`b'` in :math:`v^-`).

    Raises:
        ValueError: If there are fewer than two draws, which have no covariance.
    """
    num_samples = negative.shape[0]
    if num_samples < 2:
        raise ValueError(
            f"Expected at least 2 draws of the model, for their covariance, got {num_samples}."
        )
    xp = array_namespace(positive, negative)
    if bound < inf:
        positive, negative = xp.clip(positive, -bound, bound), xp.clip(negative, -bound, bound)
    a_derivative = divergence.a_derivative(positive)
    b, b_derivative = divergence.b(negative), divergence.b_derivative(negative)
    mean_b = xp.mean(b, axis=0)
    covariance = num_samples / (num_samples - 1) * (b - mean_b)
    is_full = gradient == "full"
    return FDivergenceWeights(
        positive_energy=a_derivative if is_full else xp.zeros_like(a_derivative),
        positive_critic=a_derivative,
        negative_energy=covariance - b_derivative if is_full else covariance,
        negative_critic=b_derivative,
        value=divergence.a(positive) - mean_b,
    )


def weighted_loss(
    weights: FDivergenceWeights, energies: Energies, positive_critic: Any, negative_critic: Any
) -> Any:
    """Sum energies and critics by their weights, shape ``(*batch,)``.

    The base is trained as an energy that absorbs minus its log-density: potentials take the place
    of energies here, but not in the log-ratio.
    """
    xp = array_namespace(positive_critic, negative_critic)
    return (
        weights.positive_energy * energies.positive
        - weights.positive_critic * positive_critic
        + xp.mean(weights.negative_energy * energies.negative, axis=0)
        + xp.mean(weights.negative_critic * negative_critic, axis=0)
    )


def log_ratio_metrics(positive: Any, negative: Any, bound: float) -> Metrics:
    """Return metrics of the critic: mean log-ratios near 0 and a mean ratio near 1 are good.

    Log-ratios are constants of any shape, to be clipped at the bound.
    """
    xp = array_namespace(positive, negative)

    def count(counts: Any) -> tuple[Any, Any]:
        return count_rows(positive, xp.zeros_like(negative), counts)

    def of_data(counts: Any = None) -> Any:
        return weighted_mean(positive, count(counts)[0])

    def of_negatives(counts: Any = None) -> Any:
        return weighted_mean(negative, count(counts)[1])

    def mean_ratio(counts: Any = None) -> Any:
        return weighted_mean(xp.exp(negative), count(counts)[1])

    def clipped(counts: Any = None) -> Any:
        both = joined((positive, negative))
        return weighted_mean(xp.astype(xp.abs(both) > bound, both.dtype), joined(count(counts)))

    return {
        "log_ratio_of_data": of_data,
        "log_ratio_of_negatives": of_negatives,
        "mean_ratio": mean_ratio,
        "clipped": clipped,
    }


def _check_bound(name: str, value: Any) -> float:
    return inf if value == inf else check_positive(name, value)
