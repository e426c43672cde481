"""Bidirectional bounds: an energy between bounds of its likelihood that a generator makes."""

from math import prod
from typing import Any

import jax
from jax import Array, lax, random
from numpyro.distributions.util import sum_rightmost

from pyro_ebm.core.checks import (
    check_choice,
    check_nonnegative,
    check_one_base,
    check_positive_integer,
)
from pyro_ebm.core.infer.metrics import record_figures
from pyro_ebm.core.objectives.bidirectional_bounds import ENTROPIES, PENALTIES, excess, half_square
from pyro_ebm.numpyro.objectives.generator import Compared, Partner, with_slope
from pyro_ebm.numpyro.objectives.negatives import record_effective_samples, record_energies

__all__ = ["BidirectionalBounds"]


class BidirectionalBounds:
    r"""Objective that keeps the likelihood of an energy between two bounds.

    .. math::
        \mathbb E[f] \le \log Z \le \mathbb E[f] + R / \rho, \qquad
        f(w) = -U(T(w)) - \log \eta(w) + \log v(w), \qquad
        R = \tfrac12 \mathbb E |\nabla_w f|^2

    Here U is the energy minus the log-density of the base, and a generator T of latent values
    :math:`w \sim \eta`, of volume element v, is the energy's variational partner; the lower bound
    is minus the mean of U over its draws, plus their entropy. The generator is declared in the
    guide and maximises the lower bound. The energy minimises its negative log-likelihood with an
    upper bound in the place of :math:`\log Z`,

    .. math:: \mathbb E_p[U] + \mathbb E[f] + \max(w R - \zeta, 0),

    for with the lower bound alone its scale may run away. No MCMC is needed, one draw serves both
    players, and both move at once. Where generator and model agree, the bounds do, and the
    penalty has no gradient: it does not bias the optimum.

    The entropy of the generator:

    | ``"exact"``: :math:`v^2 = \det J^\top J` of its Jacobian, or what a ``Transform`` tells.
    | ``"smallest_singular_value"``: :math:`v = s^d` of the smallest singular value, a lower
      bound that is tight where all are equal; with ``num_iterations`` steps of LOBPCG, without
      ever forming J, a value above it, and no bound.
    | ``"stochastic"``: the exact one estimated by ``num_probes`` of Lanczos quadrature; no bound.
    | ``"noise"``: the generator adds noise, ``Pushforward(..., noise_scale=...)``, so that it has
      a density whatever the size of its latent, and an encoder r, declared beside it, bounds the
      entropy from below: :math:`\log v = D \log \sigma + \log r(z | x)` with w both z and noise.

    Traps:

    * Only ``"exact"`` with an injective generator of as many latent as data dimensions, and
      ``"noise"``, bound :math:`\log Z`; fewer latent dimensions without noise earn a warning.
    * :math:`w R` bounds the gap where :math:`w \rho \ge 1`; the weights of 0.001 of the published
      runs make a regulariser. :func:`bounds` reports what is a bound.
    * R is blind to modes that the generator misses; ``effective_samples`` (a figure of health)
      often is too. The diffusion-time bound of :func:`bounds` sees them.
    * Slopes of a volume are second derivatives of the generator: use smooth activations, and no
      batch norm. Adam oscillates less with ``b1=0.0, b2=0.9``.

    Args:
        entropy: How the generator's entropy is estimated, see above.
        penalty: ``"log_ratio"`` for the one above, or ``"data"`` for
            :math:`w\, \mathbb E_p |\nabla_x U|^2`, common and biased: it flattens the optimum.
        penalty_weight: :math:`w \ge 0`; zero for none.
        threshold: :math:`\zeta \ge 0`, what the penalty may be for nothing.
        entropy_weight: Of the entropy in the generator's loss. Below 1, as for images, its lower
            bound is no longer what it maximises.
        num_generator_samples: Draws in each step; by default as many as there are values.
        num_iterations: Of LOBPCG or of Lanczos; see :func:`log_det_jtj`.
        num_probes: Of Lanczos quadrature.

    Raises:
        ValueError: If an argument is out of range; in ``loss``, if the base has a batch shape, or
            the guide declares a generator that does not fit the site, an encoder without noise, or
            noise without an encoder.

    Warns:
        UserWarning: If the generator has fewer latent than data dimensions, and no noise.

    Example:
        >>> def guide(x):  # doctest: +SKIP
        ...     latent = dist.Normal(jnp.zeros(2), 1.0).to_event(1)
        ...     auxiliary("x", generator=Pushforward(latent, eqx_module("generator", generator)))
        >>> loss = EnergyELBO(BidirectionalBounds())  # doctest: +SKIP
        >>> svi = SVI(model, guide, optax.adam(2e-4, b1=0.0, b2=0.9), loss)  # doctest: +SKIP

    References:
        | Bounds all around: training energy-based models with bidirectional bounds (Geng et al.,
          2021), https://arxiv.org/abs/2111.00929
        | Exploring bidirectional bounds for minimax-training of energy-based models (Geng et al.,
          2025), https://arxiv.org/abs/2506.04609
    """

    def __init__(
        self,
        *,
        entropy: str = "exact",
        penalty: str = "log_ratio",
        penalty_weight: float = 1.0,
        threshold: float = 0.0,
        entropy_weight: float = 1.0,
        num_generator_samples: int | None = None,
        num_iterations: int | None = None,
        num_probes: int = 1,
    ) -> None:
        self.entropy = check_choice("entropy", entropy, ENTROPIES)
        self.penalty = check_choice("penalty", penalty, PENALTIES)
        self.penalty_weight = check_nonnegative("penalty_weight", penalty_weight)
        self.threshold = check_nonnegative("threshold", threshold)
        self.entropy_weight = check_nonnegative("entropy_weight", entropy_weight)
        if num_generator_samples is not None:
            check_positive_integer("num_generator_samples", num_generator_samples)
        self.num_generator_samples = num_generator_samples
        if num_iterations is not None:
            check_positive_integer("num_iterations", num_iterations)
        self.num_iterations = num_iterations
        self.num_probes = check_positive_integer("num_probes", num_probes)

    def __repr__(self) -> str:
        return (
            f"BidirectionalBounds(entropy={self.entropy!r}, penalty={self.penalty!r}, "
            f"penalty_weight={self.penalty_weight}, threshold={self.threshold}, "
            f"entropy_weight={self.entropy_weight})"
        )

    def loss(
        self,
        rng_key: Array,
        distribution: Any,
        value: Array,
        *,
        generator: Any,
        encoder: Any = None,
    ) -> Array:
        """Loss of each value, with gradients for energy and base, generator and encoder.

        Args:
            rng_key: Random key.
            distribution: An energy-based distribution.
            value: Shape ``(*batch, *event)``; held constant.
            generator: A ``Pushforward``, transformed distribution or flow of the event shape.
            encoder: From ``(N, *event)`` to a distribution over the latent of batch shape
                ``(N,)``; with noise only.

        Returns:
            Shape ``(*batch,)``: an estimate of the upper bound of the negative log-likelihood.
        """
        check_one_base(distribution)
        value, (partner_key, draw_key) = lax.stop_gradient(value), random.split(rng_key)
        partner = Partner.of(
            partner_key,
            distribution,
            generator,
            encoder,
            entropy=self.entropy,
            num_iterations=self.num_iterations,
            num_probes=self.num_probes,
        )
        num_values = value.size // prod(distribution.event_shape)
        latent = partner.draw(draw_key, self.num_generator_samples or num_values)
        compared = partner.compare(distribution, latent)
        if self.penalty == "data":
            potential, penalty = self._penalize_data(distribution, value)
        else:
            potential, penalty = distribution.potential(value), self._penalize(compared)
        _record(potential, compared)
        generated = _mean_product(lax.stop_gradient(compared.score), compared.value)
        entropy = compared.log_inverse_density.mean()
        game = generated - self.entropy_weight * entropy - compared.potential.mean()
        return potential + penalty + compared.log_ratio.mean() + (game - lax.stop_gradient(game))

    def _penalize(self, compared: Compared) -> Array | float:
        """The penalty on slopes of the log-ratio; the energy feels it through its scores."""
        if not self.penalty_weight:
            return 0.0

        def mean_half_square(score: Array) -> Array:
            return half_square(compared.slope_at(score)).mean()

        score = lax.stop_gradient(compared.score)
        found = jax.value_and_grad(mean_half_square)(score)
        penalty, weights = lax.stop_gradient(found)
        value, factor = excess(penalty, self.penalty_weight, self.threshold)
        felt = (weights * compared.score).sum()
        return value + factor * (felt - lax.stop_gradient(felt))

    def _penalize_data(self, distribution: Any, value: Array) -> tuple[Array, Array]:
        """Potentials of values, and the penalty on their slopes; shapes ``(*batch,)``."""
        potential, slope = with_slope(distribution.potential, value)
        square = sum_rightmost(slope**2, distribution.event_dim)
        penalty, _ = excess(square, self.penalty_weight, self.threshold)
        return potential, penalty


def _mean_product(first: Array, second: Array) -> Array:
    """Mean over rows of their inner products."""
    return (first * second).sum() / len(first)


def _record(potential: Array, compared: Compared) -> None:
    """Figures of a good partner: bounds that meet, and draws that all count."""
    record_energies(potential, compared.potential)
    record_effective_samples(compared.log_ratio)
    log_ratio = compared.log_ratio
    record_figures(
        lower_bound=log_ratio.mean,
        penalty=lambda: half_square(compared.slope).mean(),
    )
