"""What a generator's draws say about a normalizing constant, and what of it is a bound."""

import math
from typing import Any, NamedTuple

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_choice, check_one_base, check_positive, is_implicit
from pyro_ebm.core.evidence.weights import bracket
from pyro_ebm.core.objectives.bidirectional_bounds import ENTROPIES

__all__ = [
    "Bounds",
    "Flow",
    "check_flow",
    "check_request",
    "entropy_bounds",
    "into_blocks",
    "summarize_bounds",
]

# Bounds are moved outward by so many standard errors.
_MARGIN = 2.0


class Bounds(NamedTuple):
    r"""Bounds and an estimate of :math:`\log Z = \log \int e^{-U(x)}\,dx` from a generator.

    All but ``log_weights`` are scalars. What bounds what is said by :func:`summarize_bounds`.

    Attributes:
        mean_log_ratio: :math:`\mathbb E[f]`, the generator's entropy minus its mean potential.
        lower: Two standard errors below it; minus infinity where the entropy is an estimate.
        upper: Lowest upper bound, two standard errors up; plus infinity where there is none.
        penalty: :math:`R = \tfrac12 \mathbb E |\nabla_w f|^2`. Not a bound of anything: only
            :math:`R / \rho` with the log-Sobolev constant is.
        estimate: Best guess of :math:`\log Z`, the log of the mean of :math:`e^f`.
        standard_error: That of ``estimate``; plus infinity where fewer than 10 effective draws
            cannot tell.
        effective_sample_size: Kish's, of the weights :math:`e^f`. Blind to modes that the
            generator misses, as all but the divergence is.
        log_weights: :math:`f`, shape ``(num_samples,)``.
        divergence: Estimate of :math:`KL(p_g \,\|\, p)` by the heat flow, from above; None unless
            asked for.
        divergence_sample_size: Effective number of the weighted points that told where the model
            is, at the time when they were fewest; None unless asked for. Do not trust the
            divergence if it is below 10.
    """

    mean_log_ratio: Any
    lower: Any
    upper: Any
    penalty: Any
    estimate: Any
    standard_error: Any
    effective_sample_size: Any
    log_weights: Any
    divergence: Any
    divergence_sample_size: Any


class Flow(NamedTuple):
    r"""What a heat flow tells of the divergence of a generator from a model.

    Attributes:
        divergences: :math:`KL(p_g \,\|\, p)` by each block of draws and what was drawn for it,
            shape ``(num_blocks,)``.
        sample_size: As ``divergence_sample_size`` of :class:`Bounds`.
    """

    divergences: Any
    sample_size: Any


def summarize_bounds(
    log_ratio: Any,
    half_squares: Any,
    *,
    is_bounded: bool = True,
    log_sobolev_constant: float | None = None,
    flow: Flow | None = None,
) -> Bounds:
    r"""Bounds of :math:`\log Z` from log-ratios and their slopes.

    .. math::
        \mathbb E[f] \le \log Z \le
        \min\Big(\mathbb E[f] + \frac{R}{\rho},\; \mathbb E[f] + KL(p_g \,\|\, p)\Big)

    The first upper bound is the log-Sobolev inequality of the density :math:`\eta e^f / Z` of
    latent values, the second an identity where f is exact. Bounds are two standard errors away
    from the means, good for about 97 runs in 100 each if tails are light. The errors of the second
    one are those of 10 blocks, good for about 95, in each of which those of both terms largely
    cancel.

    Args:
        log_ratio: :math:`f` of draws, shape ``(N,)``.
        half_squares: :math:`\tfrac12 |\nabla_w f|^2`, shape ``(N,)``.
        is_bounded: Whether f is exact, or too low on average.
        log_sobolev_constant: :math:`\rho`.
        flow: What the heat flow tells.
    """
    xp = array_namespace(log_ratio)
    weights = bracket(log_ratio)
    infinite = xp.full_like(weights.estimate, math.inf)
    upper = infinite
    if log_sobolev_constant is not None:
        upper = _above(log_ratio + half_squares / log_sobolev_constant)
    if flow is not None:
        num_blocks = flow.divergences.shape[0]
        blocks = into_blocks(log_ratio, num_blocks)
        upper = xp.minimum(upper, _above(xp.mean(blocks, axis=1) + flow.divergences))
    return Bounds(
        xp.mean(log_ratio),
        -_above(-log_ratio) if is_bounded else -infinite,
        upper,
        xp.mean(half_squares),
        weights.estimate,
        weights.standard_error,
        weights.effective_sample_size,
        log_ratio,
        None if flow is None else xp.mean(flow.divergences),
        None if flow is None else flow.sample_size,
    )


def into_blocks(draws: Any, num_blocks: int) -> Any:
    """Draws ``(N, *event)`` as ``(num_blocks, N // num_blocks, *event)``, without those left."""
    size = draws.shape[0] // num_blocks
    kept = draws[: num_blocks * size, ...]
    return array_namespace(draws).reshape(kept, (num_blocks, size, *draws.shape[1:]))


def entropy_bounds(entropy: str, num_iterations: int | None) -> bool:
    """Whether a way to find a generator's entropy never overstates it."""
    if entropy == "smallest_singular_value":
        return num_iterations is None
    return entropy != "stochastic"


def check_request(
    distribution: Any, entropy: str, log_sobolev_constant: float | None, *, diffusion: bool
) -> None:
    """Raise unless the upper bounds that are asked for can be had."""
    check_one_base(distribution)
    check_choice("entropy", entropy, ENTROPIES)
    if log_sobolev_constant is not None:
        check_positive("log_sobolev_constant", log_sobolev_constant)
        if entropy not in ("exact", "noise"):
            raise ValueError(
                "Expected entropy='exact' or 'noise' with a `log_sobolev_constant`, got "
                f"{entropy!r}: the bound it gives is one of E[e^f], which is log Z for them alone."
            )
    if diffusion and entropy != "exact":
        raise ValueError(
            f"Expected entropy='exact' with diffusion=True, got {entropy!r}: the divergence is "
            "that of the generator's density, and bounds log Z only together with its exact "
            "entropy (an encoder's shortfall is unknown)."
        )
    if diffusion and (distribution.base is None or is_implicit(distribution.base)):
        raise ValueError(
            "Expected a base with a density, which says where modes may be, with diffusion=True, "
            f"got base={distribution.base}."
        )


def check_flow(sizes: tuple[int, int], distribution: Any, *, is_unconstrained: bool) -> None:
    """Raise unless generator and model have densities that heat flows smooth.

    Args:
        sizes: Numbers of latent and of data dimensions.
        distribution: The model.
        is_unconstrained: Whether its support is all of space.
    """
    if sizes[0] != sizes[1]:
        raise ValueError(
            "Expected a generator of as many latent as data dimensions with diffusion=True, got "
            f"{sizes[0]} and {sizes[1]}."
        )
    if not is_unconstrained:
        raise ValueError(
            "Expected a distribution on all real numbers with diffusion=True, got one on "
            f"{distribution.support}."
        )


def _above(x: Any) -> Any:
    """Two standard errors above a mean."""
    xp = array_namespace(x)
    error = xp.std(x, correction=1) / math.sqrt(x.shape[0])
    return xp.mean(x) + _MARGIN * error
