"""Bidirectional bounds: an energy between two bounds of its likelihood from a generator."""

from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_choice, check_nonnegative, check_positive_integer
from pyro_ebm.core.numerics import sum_event
from pyro_ebm.core.objectives.generator import ENTROPIES, GeneratorDraws
from pyro_ebm.core.objectives.loss import EvaluatedLoss, Loss, Objective
from pyro_ebm.core.objectives.negatives import energy_metrics, weight_metrics
from pyro_ebm.core.objectives.settings import convert_fields, optional


@dataclass(frozen=True, kw_only=True)
class BidirectionalBounds(Objective):
    r"""Objective that keeps the likelihood of an energy between two bounds.

    .. math::
        \mathbb E[f] \le \log Z \le \mathbb E[f] + R / \rho, \qquad
        R = \tfrac12 \mathbb E |\nabla_w f|^2,

        f(w) = -U(T(w)) - \log \eta(w) + \log v(w)

    Here U is the energy minus the log-density of the base. A generator T of latent values
    :math:`w \sim \eta`, of volume element v, is the energy's variational family: the lower bound
    is minus the mean of U over its draws, plus their entropy. Attach it in the guide,
    ``attach("x", generator=Pushforward(latent, T))``; it maximizes the lower bound. The energy
    minimizes its negative log-likelihood with an upper bound in place of :math:`\log Z`,

    .. math:: \mathbb E_p[U] + \mathbb E[f] + \max(w R - \zeta, 0),

    because with the lower bound alone the energy's scale can diverge. No MCMC; one draw serves
    both players, who move at once. Where generator and model agree, so do the bounds, and the
    penalty has no gradient: it does not bias the optimum. The value of the loss estimates the
    upper bound of the negative log-likelihood.

    The entropy of the generator:

    | ``"exact"``: :math:`v^2 = \det J^\top J` of its Jacobian, or from a ``Transform``.
    | ``"smallest_singular_value"``: :math:`v = s^d` of the smallest singular value, a lower
      bound that is tight where all are equal; with ``num_iterations`` steps of LOBPCG, without
      ever forming J, a value above it, and no bound.
    | ``"stochastic"``: the exact one estimated by ``num_probes`` of Lanczos quadrature; no bound.
    | ``"noise"``: the generator adds noise, ``Pushforward(..., noise_scale=...)``, and has a
      density whatever the size of its latent. An encoder r, attached as ``encoder``, from
      ``(N, *event)`` to distributions over the latent of batch shape ``(N,)``, bounds the
      entropy from below: :math:`\log v = D \log \sigma + \log r(z | x)` with w both z and noise.

    Traps:

    * Only ``"exact"`` with an injective generator of as many latent as data dimensions, and
      ``"noise"``, bound :math:`\log Z`; fewer latent dimensions without noise trigger a warning.
    * :math:`w R` bounds the gap where :math:`w \rho \ge 1`; the weights of 0.001 in the published
      runs make a regularizer. :func:`generator_bounds` reports actual bounds.
    * R is blind to modes that the generator misses, and so, often, is the metric
      ``effective_sample_size``. In few dimensions :func:`log_normalizer` sees them.
    * Gradients of a volume are second derivatives of the generator: use smooth activations and no
      batch norm. Adam oscillates less with a first decay rate of 0 and a second of 0.9.

    Args:
        entropy: Estimate of the generator's entropy, see above.
        penalty: ``"log_ratio"`` for the one above, or ``"data"`` for
            :math:`w\, \mathbb E_p |\nabla_x U|^2`, common and biased: it flattens the optimum.
        penalty_weight: :math:`w \ge 0`; zero for none.
        threshold: :math:`\zeta \ge 0`; the penalty counts only above it, R being the mean over the
            draws of one process.
        entropy_weight: Weight of the entropy in the generator's loss. Below 1, as for images, the
            generator no longer maximizes its lower bound.
        num_samples: Draws of the generator in each step; by default as many as there are values.
        num_iterations: Steps of LOBPCG or Lanczos; see :mod:`pyro_ebm.core.objectives.jacobian`.
        num_probes: Probes of Lanczos quadrature.

    Raises:
        ValueError: If an argument is out of range; in ``loss``, if the base has a batch shape, or
            the generator does not fit the site, or noise and encoder do not come together.

    Warns:
        UserWarning: If the generator has fewer latent than data dimensions, and no noise.

    References:
        | Bounds all around: training energy-based models with bidirectional bounds (Geng et al.,
          2021), https://arxiv.org/abs/2111.00929
        | Exploring bidirectional bounds for minimax-training of energy-based models (Geng et al.,
          2025), https://arxiv.org/abs/2506.04609
    """

    # The host's functions: values of rows and their gradients, differentiable in parameters; a
    # number and its gradient, as constants.
    _value_and_slope: ClassVar[Any]
    _value_and_gradient: ClassVar[Any]

    entropy: str = "exact"
    penalty: str = "log_ratio"
    penalty_weight: float = 1.0
    threshold: float = 0.0
    entropy_weight: float = 1.0
    num_samples: int | None = None
    num_iterations: int | None = None
    num_probes: int = 1

    def __post_init__(self) -> None:
        check_choice("entropy", self.entropy, ENTROPIES)
        check_choice("penalty", self.penalty, ("log_ratio", "data"))
        convert_fields(
            self,
            penalty_weight=check_nonnegative,
            threshold=check_nonnegative,
            entropy_weight=check_nonnegative,
            num_samples=optional(check_positive_integer),
            num_iterations=optional(check_positive_integer),
            num_probes=check_positive_integer,
        )

    @property
    def _is_mean_over_parts(self) -> bool:
        return self.threshold == 0 or self.penalty == "data"

    def _loss(self, distribution: Any, value: Any, draws: GeneratorDraws) -> Loss:
        if self.penalty == "data":
            potential, penalty = self._penalize_data(distribution, value)
        else:
            potential, penalty = distribution.potential(value), self._penalize(draws)
        constant, xp = draws.constant, array_namespace(potential)
        generated = xp.sum(constant(draws.gradient) * draws.value) / draws.value.shape[0]
        entropy = xp.mean(draws.neg_log_density)
        game = generated - self.entropy_weight * entropy - xp.mean(draws.potential)
        loss = potential + penalty + xp.mean(draws.log_ratio) + (game - constant(game))
        metrics = {
            **energy_metrics(constant(potential), constant(draws.potential)),
            **weight_metrics(draws.log_ratio),
            "lower_bound": lambda: xp.mean(draws.log_ratio),
            "penalty": lambda: xp.mean(half_squared_norm(draws.ratio_gradient)),
        }
        return EvaluatedLoss(loss, metrics, potential)

    def _penalize(self, draws: GeneratorDraws) -> Any:
        """Penalty on gradients of the log-ratio, whose gradient goes through the potential's."""
        if not self.penalty_weight:
            return 0.0
        xp = array_namespace(draws.gradient)

        def mean_square(gradient: Any) -> Any:
            return xp.mean(half_squared_norm(draws.ratio_gradient_at(gradient)))

        # Numbers alone: a graph in all parameters would be built beside.
        penalty, weights = self._value_and_gradient(mean_square, draws.gradient)
        value, factor = hinge(penalty, self.penalty_weight, self.threshold)
        change = xp.sum(weights * draws.gradient)
        return value + factor * (change - draws.constant(change))

    def _penalize_data(self, distribution: Any, value: Any) -> tuple[Any, Any]:
        """Potentials of values, and the penalty on their gradients; shapes ``(*batch,)``."""
        potential, gradient = self._value_and_slope(distribution.potential, value)
        square = sum_event(gradient**2, distribution.event_dim)
        penalty, _ = hinge(square, self.penalty_weight, self.threshold)
        return potential, penalty


def half_squared_norm(gradient: Any) -> Any:
    r"""Compute half of the squared norm of each row, ``(N, *event)`` to ``(N,)``, for the bounds.

    .. math:: r(w) = \tfrac12 |\nabla_w f(w)|^2, \qquad R = \mathbb E_\eta[r]

    For latent values w of density :math:`\eta` and log-ratios f, :math:`\log \mathbb E[e^f]` is at
    least :math:`\mathbb E[f]`, and at most :math:`\mathbb E[f] + R / \rho`, where :math:`\rho` is
    the log-Sobolev constant of :math:`\eta e^f`. (It is at least 1 for a standard normal
    :math:`\eta` and concave f.)
    """
    xp = array_namespace(gradient)
    return 0.5 * xp.sum(xp.reshape(gradient, (gradient.shape[0], -1)) ** 2, axis=-1)


def hinge(penalty: Any, weight: float, threshold: float) -> tuple[Any, Any]:
    r"""Compute a penalty R, of weight w and threshold :math:`\zeta`, and its derivative in R.

    .. math:: \max(w R - \zeta, 0), \qquad w \, [w R > \zeta]
    """
    xp = array_namespace(penalty)
    above = weight * penalty - threshold
    zero = xp.zeros_like(above)
    return xp.where(above > 0, above, zero), xp.where(above > 0, zero + weight, zero)
