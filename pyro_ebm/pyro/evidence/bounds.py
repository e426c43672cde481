"""Bounds of normalizing constants that a generator gives."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.evidence.bounds import (
    Bounds,
    Flow,
    check_flow,
    check_request,
    entropy_bounds,
    into_blocks,
    summarize_bounds,
)
from pyro_ebm.core.evidence.diffusion import (
    REMAINDER,
    flow_times,
    mixed_log_weights,
    smoothed_score,
    smoothing_scale,
    weighted_spread,
)
from pyro_ebm.core.evidence.weights import check_log_weights
from pyro_ebm.core.objectives.bidirectional_bounds import half_square
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.objectives.generator import Compared, Partner
from pyro_ebm.pyro.samplers.target import is_unconstrained, value_and_gradient

__all__ = ["bounds"]

# Independent estimates of a divergence, whose differences tell its error.
_NUM_BLOCKS = 10
# Points near each value, beside those of the base, that tell the score of a smoothed model there.
_NUM_NEAR = 32
# Pairs of a value and a point that are compared at once.
_MAX_PAIRS = 2**18


@torch.no_grad()
def bounds(
    distribution: EnergyBased,
    generator: Any,
    *,
    encoder: Callable[[Tensor], Any] | None = None,
    entropy: str = "exact",
    num_samples: int = 1000,
    num_iterations: int | None = None,
    num_probes: int = 1,
    log_sobolev_constant: float | None = None,
    diffusion: bool = False,
) -> Bounds:
    r"""Bounds and an estimate of :math:`\log Z` from draws of a generator.

    .. math::
        \mathbb E[f] \le \log Z = \log \mathbb E[e^f], \qquad
        f(w) = -U(T(w)) - \log \eta(w) + \log v(w)

    With the generator that :class:`BidirectionalBounds` trains, or any other. U is the energy
    minus the log-density of the base, T the generator of latent values :math:`w \sim \eta`, and v
    its volume element as ``entropy`` says, see there.

    *Lower bound.* That of :math:`\log Z` with ``"exact"`` and
    ``"smallest_singular_value"``, if the generator is injective and has as many latent as data
    dimensions; with ``"noise"`` whatever generator and encoder. With fewer latent dimensions and
    no noise, every number is about the integral over the surface that the generator makes, and a
    warning says so. An estimated entropy, of ``"stochastic"`` or with ``num_iterations`` of
    LOBPCG, may be too high: ``lower`` is then minus infinity.

    *Upper bound.* None by itself: R, the ``penalty`` that is trained with, is not one. But
    :math:`\mathbb E[f] + R / \rho` is, for ``"exact"`` with a generator onto all of space and for
    ``"noise"``, where :math:`\rho` is the log-Sobolev constant of the density :math:`\eta e^f` of
    latent values. It is at least the smallest eigenvalue, over all w, of the Hessian of
    :math:`-\log \eta - f`, and so at least 1 if f is concave and the latent standard normal. (If f
    has slopes of at most L instead, R may be replaced by :math:`L^2 / 2`, with :math:`\rho = 1`.)
    Where f is not concave such a constant is rarely known, and tiny if there are modes far apart,
    which R does not see if the generator misses one.

    *Diffusion.* The divergence of generator and model, :math:`\log Z - \mathbb E[f]`, as an
    integral over a heat flow that lets distant modes meet; this sees what is missing wherever
    the base has draws. A diagnostic for one to three dimensions rather than a certificate:
    scores of the smoothed densities are weighted means, over the generator's draws and over as
    many of the base's together with 32 points around each value. Their errors enlarge the
    divergence as a rule, but if ``divergence_sample_size`` is small they may hide a mode. It
    costs gradients of 1,000 energies for each draw, and time and memory with the square of
    their number. Densities must be on all of space, without jumps.

    *Estimate.* Importance sampling, unbiased for Z wherever :math:`\log Z = \log \mathbb E[e^f]`
    holds, and too low with ``"smallest_singular_value"``.

    Args:
        distribution: Energy-based distribution; needs a base for ``diffusion`` only.
        generator: A ``Pushforward``, transformed distribution or flow of its event shape.
        encoder: From ``(N, *event)`` to a distribution over the latent of batch shape ``(N,)``;
            with ``"noise"`` only.
        entropy: ``"exact"``, ``"smallest_singular_value"``, ``"stochastic"`` or ``"noise"``.
        num_samples: Independent draws of the generator; at least 100 for ``diffusion``.
        num_iterations: Of LOBPCG or of Lanczos; see :func:`log_det_jtj`.
        num_probes: Of Lanczos quadrature.
        log_sobolev_constant: :math:`\rho > 0`, or a number below it, where it is known.
        diffusion: Whether to follow the heat flow.

    Returns:
        Record of scalars.

    Raises:
        ValueError: If the generator or an option does not fit the distribution, an upper bound is
            asked for that this ``entropy`` does not give, or energies at draws are NaN.

    Warns:
        UserWarning: If the generator has fewer latent than data dimensions, and no noise.

    References:
        | Bounds all around: training energy-based models with bidirectional bounds (Geng et al.,
          2021), https://arxiv.org/abs/2111.00929
        | Interpretation and generalization of score matching (Lyu, 2009),
          https://arxiv.org/abs/1205.2629
    """
    minimum = 10 * _NUM_BLOCKS if diffusion else 2
    check_positive_integer("num_samples", num_samples, minimum=minimum)
    check_request(distribution, entropy, log_sobolev_constant, diffusion=diffusion)
    options = {"entropy": entropy, "num_iterations": num_iterations, "num_probes": num_probes}
    partner = Partner.of(distribution, generator, encoder, **options)
    if diffusion:
        sizes = partner.source.latent.event_shape.numel(), distribution.event_shape.numel()
        check_flow(sizes, distribution, is_unconstrained=is_unconstrained(distribution))
    compared = partner.compare(distribution, partner.draw(num_samples))
    check_log_weights(distribution, compared.log_ratio, "draws of the generator")
    return summarize_bounds(
        compared.log_ratio,
        half_square(compared.slope),
        is_bounded=entropy_bounds(entropy, num_iterations),
        log_sobolev_constant=log_sobolev_constant,
        flow=_flow(distribution.unexpanded, compared) if diffusion else None,
    )


class _Points(NamedTuple):
    """Points, shape ``(N, K, D)``, and what is known of a model and its base there.

    N is one where all values share them.
    """

    value: Tensor
    score: Tensor
    log_density: Tensor
    log_base: Tensor

    @classmethod
    def of(cls, distribution: EnergyBased, value: Tensor) -> "_Points":
        shaped = value.reshape(value.shape[:2] + distribution.event_shape)
        potential, slope = value_and_gradient(distribution.potential, shaped)
        log_base = distribution.base.log_prob(shaped)
        return cls(value, -slope.reshape(value.shape), -potential, log_base)

    def beside(self, shared: "_Points") -> "_Points":
        """These points and shared ones for each value."""
        joined = (
            torch.cat([own, other.expand(len(own), *other.shape[1:])], dim=1)
            for own, other in zip(self, shared, strict=True)
        )
        return _Points(*joined)


def _flow(distribution: EnergyBased, compared: Compared) -> Flow:
    value, score = (into_blocks(part, _NUM_BLOCKS) for part in _values_and_scores(compared))
    num_blocks, size, num_dims = value.shape
    # As many for each block as there are draws in all.
    pool = distribution.base.sample((num_blocks, num_blocks * size))
    pool = pool.reshape(num_blocks, -1, num_dims)
    blocks = [_follow(distribution, *block) for block in zip(value, score, pool, strict=True)]
    divergences, sizes = map(torch.stack, zip(*blocks, strict=True))
    return Flow(divergences, sizes.min())


def _values_and_scores(compared: Compared) -> tuple[Tensor, Tensor]:
    """Draws of the generator and slopes of its log-density there, shapes ``(N, D)``."""
    slope = compared.slope
    rows = slope.flatten(1) if slope.ndim > 1 else slope[:, None]
    units = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    columns = [compared.push(unit.reshape(slope.shape[1:]).expand_as(slope)) for unit in units]
    transposed = torch.stack([column.reshape(rows.shape) for column in columns], dim=1)
    # In data space, the slope of the log-ratio is minus that of potential and log-density.
    score = -compared.score.reshape(rows.shape) - torch.linalg.solve(transposed, rows)
    return compared.value.reshape(rows.shape), score


def _follow(
    distribution: EnergyBased, value: Tensor, score: Tensor, draws: Tensor
) -> tuple[Tensor, Tensor]:
    """The divergence that a block of draws tells, and its effective sample size."""
    pool = _Points.of(distribution, draws[None])
    weights = (pool.log_density - pool.log_base)[0]
    even = torch.zeros_like(value[:, 0])
    spread = weighted_spread(value, draws, weights)
    scales = smoothing_scale(score, even, spread), smoothing_scale(pool.score[0], weights, spread)
    times, time_weights = flow_times(spread)
    distances, sizes = [], []
    for time in times:
        noise = time.sqrt() * torch.randn_like(value[:, None].expand(-1, 1 + _NUM_NEAR, -1))
        noisy = value + noise[:, 0]
        near = noisy[:, None] + noise[:, 1:]
        own, _ = smoothed_score(noisy, time, value[None], score[None], even[None], scales[0])
        other, size = _model_score(distribution, noisy, time, near, pool, scales[1])
        distances.append((own - other).square().sum(-1).mean())
        sizes.append(size.mean())
    return REMAINDER + time_weights @ torch.stack(distances), torch.stack(sizes).min()


def _model_score(
    distribution: EnergyBased,
    value: Tensor,
    time: Tensor,
    near: Tensor,
    pool: _Points,
    scale: Tensor,
) -> tuple[Tensor, Tensor]:
    """Scores of the smoothed model, ``(N, D)``, and how many points each is worth, ``(N,)``."""
    counts = _NUM_NEAR, pool.value.shape[1]
    chunk = max(1, _MAX_PAIRS // sum(counts))
    parts = []
    for rows, beside in zip(value.split(chunk), near.split(chunk), strict=True):
        points, scores, density, base = _Points.of(distribution, beside).beside(pool)
        weights = mixed_log_weights(rows, time, points, density, base, counts)
        parts.append(smoothed_score(rows, time, points, scores, weights, scale))
    means, sizes = zip(*parts, strict=True)
    return torch.cat(means), torch.cat(sizes)
