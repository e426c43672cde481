r"""Bounds of a normalizing constant from draws of a generator: settings, result, formula."""

import math
from dataclasses import dataclass, field
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_choice, check_positive, check_positive_integer
from pyro_ebm.core.evidence.log_normalizer import describe
from pyro_ebm.core.evidence.weights import MARGIN, bracket
from pyro_ebm.core.objectives.generator import ENTROPIES


@dataclass(frozen=True, kw_only=True)
class GeneratorBoundsSettings:
    r"""Entropy and effort of bounds of :math:`\log Z` from draws of a generator.

    .. math::
        \mathbb E[f] \le \log Z = \log \mathbb E[e^f], \qquad
        f(w) = -U(T(w)) - \log \eta(w) + \log v(w)

    U is the energy minus the log-density of the base, T the generator of latent values
    :math:`w \sim \eta` (of ``BidirectionalBounds`` or any other), and v its volume element by the
    ``entropy`` of :class:`~pyro_ebm.core.objectives.bidirectional_bounds.BidirectionalBounds`.

    *Lower bound.* Of :math:`\log Z` with ``"exact"`` and ``"smallest_singular_value"``, if the
    generator is injective and has as many latent as data dimensions; with ``"noise"`` for any
    generator and encoder. With fewer latent dimensions and no noise, all numbers are about the
    integral over the generator's surface, and a warning says so. An estimated entropy
    (``"stochastic"``, or ``num_iterations`` of LOBPCG) may be too high: ``lower`` is then minus
    infinity.

    *Upper bound.* :math:`\mathbb E[f] + R / \rho` with the ``penalty`` R, for ``"exact"`` with a
    generator onto all of space and for ``"noise"``, where :math:`\rho` is the log-Sobolev constant
    of the density :math:`\eta e^f` of latent values. It is at least the smallest eigenvalue, over
    all w, of the Hessian of :math:`-\log \eta - f`, and so at least 1 if f is concave and the
    latent standard normal. (If f is L-Lipschitz instead, R may be replaced by
    :math:`L^2 / 2`, with :math:`\rho = 1`.) Where f is not concave such a constant is rarely
    known, and tiny if modes lie far apart; R does not see a mode that the generator misses.

    *Estimate.* By importance sampling, unbiased for Z where
    :math:`\log Z = \log \mathbb E[e^f]` holds, too low with ``"smallest_singular_value"``.

    Args:
        entropy: ``"exact"``, ``"smallest_singular_value"``, ``"stochastic"`` or ``"noise"``; the
            last needs an encoder from ``(N, *event)`` to a distribution over the latent of batch
            shape ``(N,)``.
        num_samples: Independent draws of the generator.
        num_iterations: Of LOBPCG or of Lanczos; see ``log_det_jtj``.
        num_probes: Of Lanczos quadrature.
        log_sobolev_constant: :math:`\rho > 0`, or a number below it, where it is known.

    Raises:
        ValueError: If the generator or an option does not fit the distribution, the ``entropy``
            has no upper bound but a ``log_sobolev_constant`` is given, or energies at draws are
            NaN.

    Warns:
        UserWarning: If the generator has fewer latent than data dimensions, and no noise.

    References:
        | Bounds all around: training energy-based models with bidirectional bounds (Geng et al.,
          2021), https://arxiv.org/abs/2111.00929
    """

    entropy: str = "exact"
    num_samples: int = 1000
    num_iterations: int | None = None
    num_probes: int = 1
    log_sobolev_constant: float | None = None

    def __post_init__(self) -> None:
        check_positive_integer("num_samples", self.num_samples, minimum=2)
        check_choice("entropy", self.entropy, ENTROPIES)
        if self.log_sobolev_constant is None:
            return
        check_positive("log_sobolev_constant", self.log_sobolev_constant)
        if self.entropy not in ("exact", "noise"):
            raise ValueError(
                "Expected entropy='exact' or 'noise' with a `log_sobolev_constant`, got "
                f"{self.entropy!r}: its bound is one of E[e^f], which is log Z for these two alone."
            )

    @property
    def is_lower_bound(self) -> bool:
        """Whether the entropy is never too high."""
        if self.entropy == "smallest_singular_value":
            return self.num_iterations is None
        return self.entropy != "stochastic"


@dataclass(frozen=True, eq=False)
class GeneratorBounds:
    r"""Bounds and an estimate of :math:`\log Z = \log \int e^{-U(x)}\,dx` from a generator.

    All but ``log_weights`` are scalars.

    Attributes:
        mean_log_ratio: :math:`\mathbb E[f]`, the generator's entropy minus its mean potential.
        lower: Two standard errors below it; minus infinity where the entropy is an estimate.
        upper: Upper bound, two standard errors up; plus infinity without a log-Sobolev constant.
        penalty: :math:`R = \tfrac12 \mathbb E |\nabla_w f|^2`. Not a bound of anything: only
            :math:`R / \rho` with the log-Sobolev constant is.
        estimate: Estimate of :math:`\log Z`, the log of the mean of :math:`e^f`.
        standard_error: Of ``estimate``; plus infinity with fewer than 10 effective samples, and
            where the entropy is an estimate, whose noise makes the mean of :math:`e^f` too large.
        effective_sample_size: Kish's, of the weights :math:`e^f`. It does not see modes that the
            generator misses, and neither does any other number here.
        log_weights: :math:`f`, shape ``(num_samples,)``.
    """

    mean_log_ratio: Any
    lower: Any
    upper: Any
    penalty: Any
    estimate: Any
    standard_error: Any
    effective_sample_size: Any
    log_weights: Any = field(repr=False)

    def __str__(self) -> str:
        return describe(self)


def summarize_bounds(
    log_ratio: Any, half_squared_norms: Any, settings: GeneratorBoundsSettings
) -> GeneratorBounds:
    r"""Return the bounds from log-ratios f of draws, and half of their squared gradients, ``(N,)``.

    .. math:: \mathbb E[f] \le \log Z \le \mathbb E[f] + R / \rho, \qquad
        R = \tfrac12 \mathbb E |\nabla_w f|^2

    The upper bound is the log-Sobolev inequality of the density :math:`\eta e^f / Z` of latent
    values. Both are two standard errors away from the means, and hold in about 97 of 100 runs each
    if tails are light.
    """
    xp = array_namespace(log_ratio)
    weights = bracket(log_ratio)
    infinite = xp.full_like(weights.estimate, math.inf)
    rho = settings.log_sobolev_constant
    return GeneratorBounds(
        xp.mean(log_ratio),
        -_above(-log_ratio) if settings.is_lower_bound else -infinite,
        infinite if rho is None else _above(log_ratio + half_squared_norms / rho),
        xp.mean(half_squared_norms),
        weights.estimate,
        weights.standard_error if settings.is_lower_bound else infinite,
        weights.effective_sample_size,
        log_ratio,
    )


def _above(x: Any) -> Any:
    """Return a mean plus two standard errors."""
    xp = array_namespace(x)
    error = xp.std(x, correction=1) / math.sqrt(x.shape[0])
    return xp.mean(x) + MARGIN * error
