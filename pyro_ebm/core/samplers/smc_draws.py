"""Draws by sequential Monte Carlo, and what their family trees show."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_instance
from pyro_ebm.core.samplers.checks import describe_divergence
from pyro_ebm.core.samplers.grid import Grid, describe_large_cells, describe_no_box
from pyro_ebm.core.samplers.settings import SMC
from pyro_ebm.core.samplers.smc import MAX_TEMPERATURES, Population
from pyro_ebm.core.samplers.truncation import NUM_SHARE_DRAWS, log_of_share

# With fewer effective ancestors every failure that was seen is found; so with lower acceptance.
_FEW_ANCESTORS, _STUCK = 10.0, 0.05
# Draws that a run of chains is compared with.
NUM_REFERENCE_DRAWS = 512

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class SMCDraws:
    r"""Draws by sequential Monte Carlo, and what their family trees show.

    Attributes:
        samples: Shape ``(num_samples, *batch, *event)``; NaN where the path did not reach 1. Those
            of the base's batch are independent populations.
        log_normalizer: Estimate of :math:`\log Z`, shape ``(*batch,)`` of base and context, as all
            numbers here. Its bias is of order one over the number of particles.
        standard_error: Of ``log_normalizer``, :math:`\sqrt{1 / n - 1 / N}` with n effective
            ancestors of N particles (of N effective starts, where a narrow support has copies).
        effective_ancestors: :math:`1 / \sum_i (n_i / N)^2`, with :math:`n_i` particles that
            descend from the i-th draw of the base.
        ancestors: Number of the draw of the base that each descends from, shape
            ``(num_samples, *batch)``.
        acceptance_rate: Mean acceptance of the moves at :math:`\beta = 1`.
        inverse_temperatures: :math:`\beta_0 = 0, \dots, \beta_K = 1`, shape ``(K + 1, *batch)``;
            on NumPyro 1 from there to K = 200.

    References:
        | Variance estimation in the particle filter (Lee and Whiteley, 2018)
    """

    samples: Any = field(repr=False)
    log_normalizer: Any
    standard_error: Any
    effective_ancestors: Any
    acceptance_rate: Any
    ancestors: Any = field(repr=False)
    inverse_temperatures: Any = field(repr=False)

    def __str__(self) -> str:
        xp, is_on_its_way = array_namespace(self.log_normalizer), self.inverse_temperatures < 1
        num_temperatures = int(xp.max(xp.sum(xp.astype(is_on_its_way, xp.int32), axis=0)))
        few, rate = (float(xp.min(x)) for x in (self.effective_ancestors, self.acceptance_rate))
        start = f"{self.samples.shape[0]} draws over {num_temperatures} temperatures"
        if self.log_normalizer.ndim == 0:
            log_z, error = float(self.log_normalizer), float(self.standard_error)
            start = f"{start}, log Z = {log_z:.3f} ± {error:.3f}"
        return f"{start}, effective ancestors {few:.0f}, acceptance {rate:.2f}"


def effective_ancestors(family_sizes: Any) -> Any:
    """Count effective ancestors, from the numbers of descendants, shape ``(N, *batch)``."""
    xp, num_particles = array_namespace(family_sizes), family_sizes.shape[0]
    return 1.0 / xp.sum((family_sizes / num_particles) ** 2, axis=0)


def summarize(
    population: Population,
    samples: Any,
    chosen: Any,
    starts: Any,
    inverse_temperatures: Any,
    family_sums: Callable[[Any, Any], Any],
) -> SMCDraws:
    """Return the result of a run: samples, their ancestors, and what the population shows.

    Args:
        population: The population at the end.
        samples: Values of those of its particles that are ``chosen``, by their numbers.
        chosen: Numbers of particles.
        starts: Numbers of ancestors at the start, where some are copies; else None.
        inverse_temperatures: Those that the population has visited.
        family_sums: Adds weights by ancestor.
    """
    xp, ends = array_namespace(population.log_normalizer), population.ancestors
    each = xp.ones_like(population.particles.tilt)
    num_starts = effective_ancestors(each if starts is None else family_sums(starts, each))
    size = effective_ancestors(family_sums(ends, each))
    variance = 1.0 / size - 1.0 / num_starts
    error = xp.sqrt(xp.where(variance > 0, variance, xp.zeros_like(variance)))
    reached = population.inverse_temperature == 1
    log_normalizer = population.log_normalizer
    return SMCDraws(
        samples,
        xp.where(reached, log_normalizer, xp.full_like(log_normalizer, math.nan)),
        error,
        size,
        population.acceptance_rate,
        ends[chosen, ...],
        inverse_temperatures,
    )


def arrange(
    draws: Any, sample_shape: Shape, batch_shape: Shape, own_shape: Shape, event_shape: Shape
) -> Any:
    """Arrange draws of one distribution as the sample and expanded dimensions of a distribution.

    Args:
        draws: Shape ``(N, *own_shape, *event_shape)``, of N as :func:`number_of_draws` counts them.
        sample_shape: Shape in front.
        batch_shape: Shape that ``own_shape`` was expanded to.
        own_shape: Batch shape of base and context.
        event_shape: Shape of one value.
    """
    xp, num_dims, first = array_namespace(draws), len(batch_shape), len(sample_shape)
    own, copies = _own_and_copies(batch_shape, own_shape)
    draws = xp.reshape(draws, (*sample_shape, *copies, *own, *event_shape))
    pairs = [first + i for k in range(num_dims) for i in (k, num_dims + k)]
    rest = range(first + 2 * num_dims, draws.ndim)
    draws = xp.permute_dims(draws, (*range(first), *pairs, *rest))
    return xp.reshape(draws, (*sample_shape, *batch_shape, *event_shape))


def number_of_draws(sample_shape: Shape, batch_shape: Shape, own_shape: Shape) -> int:
    """Count the draws of each distribution that a sample of a distribution has."""
    _, copies = _own_and_copies(batch_shape, own_shape)
    return math.prod(sample_shape) * math.prod(copies)


def check_draws(distribution: Any, sampler: Any, draws: Any) -> Iterator[str]:
    """Raise unless draws are finite; yield warnings about them."""
    xp = array_namespace(draws.samples)
    if not bool(xp.all(xp.isfinite(draws.samples))):
        raise ValueError(_describe_no_draws(distribution, sampler))
    if isinstance(draws, SMCDraws):
        yield from describe_doubts(distribution, draws)
    if isinstance(sampler, Grid):
        yield from describe_large_cells(distribution, sampler, draws.acceptance_rate)


def check_smc(sampler: Any) -> None:
    """Raise ``TypeError`` unless this is an instance of :class:`SMC`."""
    check_instance("sampler", sampler)
    if not isinstance(sampler, SMC):
        raise TypeError(f"Expected `sampler` to be SMC(), got {sampler}.")


def times_share(draws: SMCDraws, share: Any) -> SMCDraws:
    """Multiply a normalizing constant by the share of ``NUM_SHARE_DRAWS`` draws in a support."""
    xp, (log_share, error) = array_namespace(share), log_of_share(share, NUM_SHARE_DRAWS)
    total = draws.log_normalizer + log_share
    return replace(
        draws,
        # Without a draw inside the path has no start, and nothing is known of the rest.
        log_normalizer=xp.where(share > 0, total, log_share),
        standard_error=(draws.standard_error**2 + error**2) ** 0.5,
    )


def describe_doubts(distribution: Any, result: SMCDraws) -> Iterator[str]:
    """Yield warnings about too few ancestors and hardly any moves."""
    xp = array_namespace(result.log_normalizer)
    if bool(xp.any(xp.isnan(result.log_normalizer))):
        yield describe_end(distribution)
    if bool(xp.any(result.effective_ancestors < _FEW_ANCESTORS)):
        # Without the number, so that Python shows it once.
        yield (
            f"The draws of {distribution} have fewer than {_FEW_ANCESTORS:.0f} effective "
            "ancestors: the weights of its modes are uncertain. Take SMC(num_moves=20), then more "
            "`num_particles`."
        )
    if bool(xp.any(result.acceptance_rate < _STUCK)):
        yield (
            f"Hardly any move of the draws of {distribution} was accepted: copies of a draw are "
            "not apart. Take more `num_moves` of SMC, or look at the energy."
        )


def describe_end(distribution: Any) -> str:
    """Error message for a path that did not reach the distribution."""
    return (
        f"Expected SMC to lead draws of the base to {distribution} in {MAX_TEMPERATURES} "
        "temperatures, got stuck on the way: its energy is NaN or minus infinity, infinite at all "
        "draws of the base, as outside of its support, or too rough for the moves."
    )


def _describe_no_draws(distribution: Any, sampler: Any) -> str:
    if isinstance(sampler, Grid):
        return describe_no_box(distribution)
    return describe_end(distribution) if isinstance(sampler, SMC) else describe_divergence(sampler)


def _own_and_copies(batch_shape: Shape, own_shape: Shape) -> tuple[Shape, Shape]:
    own = (1,) * (len(batch_shape) - len(own_shape)) + tuple(own_shape)
    return own, tuple(n if m == 1 else 1 for n, m in zip(batch_shape, own, strict=True))
