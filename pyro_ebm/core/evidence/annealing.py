r"""Annealing schedules: where the temperatures lie, and how far chains step at each.

The path of densities is :math:`p_\beta \propto e^{-\beta E} p_0`, with :math:`\beta` from 0 to 1. A
short pilot run over :func:`pilot_inverse_temperatures` measures where :math:`\beta` has to change
slowly and which step size suits each temperature. Other chains then use its schedule, and their
weights are unbiased.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from array_api_compat import array_namespace

from pyro_ebm.core.distributions.tempered import tempered
from pyro_ebm.core.numerics import (
    at_least_single,
    effective_sample_size,
    expand_right,
    log_mean_exp,
    logsumexp,
    row_numbers,
)
from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.local_units import in_local_units, learns_scales
from pyro_ebm.core.samplers.smc import take_rows
from pyro_ebm.core.samplers.warmup import fitting_step_size

# Small enough at the start for energies that vary by thousands of nats over the base.
_LARGEST_PILOT, _PILOT_POWER = 200, 4
# A likelihood of many observations changes fastest near the prior: most temperatures belong there.
_POWER = 4
# Share of the temperatures that is spread evenly whatever the pilot run measured.
_EVEN_SHARE = 0.1
# Paths are resampled where a smaller share of them is effective.
_UNEVEN = 0.5
# With a lower acceptance rate, no affordable number of moves separates copies of a draw.
_STUCK = 0.02


class Path(Protocol):
    """Densities to anneal through, by inverse temperature."""

    def at(self, inverse_temperature: Any) -> Callable[[Any], Any]:
        """Potential over unconstrained space."""
        ...


@dataclass(frozen=True)
class TemperedPosterior:
    """Path from the priors, or the bases of energy priors, to the posterior."""

    posterior: Any

    def at(self, inverse_temperature: Any) -> Callable[[Any], Any]:
        """Potential over unconstrained space."""

        def potential(position: Any) -> Any:
            prior, rest = self.posterior.log_densities(position)
            return -(prior + tempered(inverse_temperature, rest))

        return potential


class Schedule(NamedTuple):
    r"""Temperatures of a run, and the step size of the chains and their units at each.

    Attributes:
        inverse_temperatures: :math:`\beta_0 = 0, \dots, \beta_K = 1`, shape ``(K + 1, *batch)``.
        step_sizes: Same shape. None: those of the kernel.
        scales: Units of coordinates, shape ``(K + 1, *batch, *event)``. None: those of the kernel.
    """

    inverse_temperatures: Any
    step_sizes: Any
    scales: Any = None

    def reversed(self) -> "Schedule":
        """Return the schedule from the distribution to the base."""
        flipped = (x if x is None else array_namespace(x).flip(x, axis=0) for x in self)
        return Schedule(*flipped)

    def last(self) -> tuple[Any, Any]:
        """Return the step size and the units at the end."""
        return self.step_sizes[-1], None if self.scales is None else self.scales[-1]


def pilot_inverse_temperatures(num_temperatures: int) -> list[float]:
    r"""Return :math:`\beta_j = (j / J)^4`: dense where a base far from the target needs it.

    J is twice the number of temperatures of the run, so that short runs have short pilots, and
    200 at most.
    """
    num = min(2 * num_temperatures, _LARGEST_PILOT)
    return [(j / num) ** _PILOT_POWER for j in range(num + 1)]


def equidistant_schedule(
    shares: Any, inverse_temperatures: Any, distances: Any, log_step_sizes: Any, scales: Any = None
) -> Schedule:
    r"""Return temperatures that are equally far apart by the distances of a pilot run.

    The distance between two neighbors is the standard deviation of the log-weight that chains
    gain there, :math:`(\beta' - \beta)\, \mathrm{sd}_\beta(E)`. Where chains mix at once, equal
    distances minimize the variance of the log-weights for a given number of temperatures. A tenth
    of the temperatures is spread evenly, in case the pilot run missed something.

    Args:
        shares: :math:`k / K`, shape ``(K + 1,)``.
        inverse_temperatures: :math:`\beta_j` of the pilot run, shape ``(J + 1,)``.
        distances: From :math:`\beta_0` to :math:`\beta_j`, shape ``(J + 1, *batch)``.
        log_step_sizes: Found at :math:`\beta_j`, shape ``(J + 1, *batch)``.
        scales: Units found at :math:`\beta_j`, shape ``(J + 1, *batch, *event)``, or None.

    References:
        | Measuring thermodynamic length (Crooks, 2007)
        | Annealing between distributions by averaging moments (Grosse, Maddison and
          Salakhutdinov, 2013)
    """
    xp = array_namespace(distances)
    even = expand_right(inverse_temperatures, distances.ndim) + xp.zeros_like(distances)
    # A constant energy has no distances, and every schedule is as good.
    total = xp.where(distances[-1] > 0, distances[-1], xp.ones_like(distances[-1]))
    covered = (1.0 - _EVEN_SHARE) * distances / total + _EVEN_SHARE * even
    covered = covered / covered[-1]
    at = expand_right(shares, distances.ndim)
    inside = _interpolate(at[1:-1], covered, even)
    ends = xp.zeros_like(even[:1]), xp.ones_like(even[:1])
    step_sizes = xp.exp(_interpolate(at, covered, log_step_sizes))
    if scales is not None:
        passed = xp.astype(covered[1:] <= at[:, None], xp.int32)
        scales = take_rows(scales, xp.sum(passed, axis=1))
    return Schedule(xp.concat((ends[0], inside, ends[1])), step_sizes, scales)


def power_inverse_temperatures(num_temperatures: int) -> list[float]:
    r"""Return :math:`\beta_k = (k / K)^4` for :math:`k = 0, \dots, K`."""
    return [(k / num_temperatures) ** _POWER for k in range(num_temperatures + 1)]


def schedule_of_pilot(inverse_temperatures: Any, log_step_sizes: Any) -> Schedule:
    """Return the schedule of a pilot run, where each step size was tuned one temperature before."""
    xp = array_namespace(log_step_sizes)
    used = xp.concat((log_step_sizes[:1], log_step_sizes[:-1]))
    return Schedule(inverse_temperatures, xp.exp(used))


def begin_pilots(sampler: Any, state: ChainState, *, learns: bool) -> ChainState:
    """Start pilots at a step size for each element of a batch, in local units if they learn any."""
    step_size = state.step_size
    if learns and learns_scales(sampler):
        state = in_local_units(sampler, state)
        step_size = fitting_step_size(sampler, state, step_size)
    none = array_namespace(state.potential).zeros_like(state.potential[0, ...])
    return state._replace(step_size=step_size + none)


class Paths(NamedTuple):
    """Chains on their way along a path.

    Attributes:
        state: Their state.
        log_weights: Shape ``(N, *batch)``. After resampling they go on from the log of their mean.
        ancestors: Number of the start that each path descends from, shape ``(N, *batch)``.
    """

    state: ChainState
    log_weights: Any
    ancestors: Any


class Annealed(NamedTuple):
    r"""Ends of paths.

    Attributes:
        position: Unconstrained values.
        log_weights: The mean of the weights is unbiased for the ratio of normalizing constants.
        effective_sample_size: :math:`1 / \sum_i W_i^2` with the share :math:`W_i` of the weight
            that descends from the i-th start; Kish's without resampling. Shape ``(*batch,)``.
        num_starts: The same at the start: fewer than paths where starts are copies.
        is_resampled: Whether paths were resampled, or starts copied, shape ``(*batch,)``.
    """

    position: Any
    log_weights: Any
    effective_sample_size: Any
    num_starts: Any
    is_resampled: Any


def begin_paths(state: ChainState, ancestors: Any = None) -> Paths:
    """Start paths of weight one, at states that may be copies of numbered ``ancestors``."""
    ancestors = row_numbers(state.potential) if ancestors is None else ancestors
    zeros = array_namespace(state.potential).zeros_like(state.potential)
    # In half precision a sum of many terms loses the small ones.
    return Paths(state, at_least_single(zeros), ancestors)


def reweight(
    sampler: Any, potential: Any, paths: Paths, step_size: Any, scale: Any = None
) -> tuple[Paths, Any]:
    """Change the temperature of paths; return the log-weights that they gain too."""
    before = paths.state.potential
    state = in_units(sampler.init(potential, paths.state.position), step_size, scale)
    gain = log_weight_increment(before, state.potential)
    return paths._replace(state=state, log_weights=paths.log_weights + gain), gain


def in_units(state: ChainState, step_size: Any, scale: Any) -> ChainState:
    """Return a state with a step size, and with units unless they are None."""
    return state._replace(step_size=step_size, scale=state.scale if scale is None else scale)


def are_uneven(log_weights: Any) -> Any:
    """Find where less than half of the paths is effective, shape ``(*batch,)``."""
    size = effective_sample_size(log_weights)
    return (size > 0) & (size < _UNEVEN * log_weights.shape[0])


def resample_uneven(paths: Paths, chosen: Any) -> Paths:
    """Replace uneven paths by those chosen by weight, shape ``(N, *batch)``."""
    state, log_weights, ancestors = paths
    xp, uneven = array_namespace(log_weights), are_uneven(log_weights)
    own = row_numbers(log_weights)
    chosen = xp.where(uneven, chosen, xp.astype(own, chosen.dtype))
    mean = xp.broadcast_to(log_mean_exp(log_weights), log_weights.shape)
    parts = {name: getattr(state, name) for name in ("position", "potential", "gradient")}
    taken = {name: take_rows(part, chosen) for name, part in parts.items() if part is not None}
    log_weights = xp.where(uneven, mean, log_weights)
    return Paths(state._replace(**taken), log_weights, take_rows(ancestors, chosen))


def finish_paths(start: Paths, paths: Paths, family_sums: Callable[[Any, Any], Any]) -> Annealed:
    """Return the ends of paths; ``family_sums`` adds weights by ancestor."""
    xp = array_namespace(paths.log_weights)

    def size(paths: Paths) -> Any:
        weights = xp.exp(paths.log_weights - logsumexp(paths.log_weights))
        return 1.0 / xp.sum(family_sums(paths.ancestors, weights) ** 2, axis=0)

    is_resampled = xp.any(paths.ancestors != row_numbers(paths.log_weights), axis=0)
    ends = paths.state.position, paths.log_weights
    return Annealed(*ends, size(paths), size(start), is_resampled)


def weights_of_both(forward: Annealed, reverse: Annealed) -> dict[str, Any]:
    """Return the arguments of ``bracket`` for paths in both directions."""
    return {
        "log_weights": forward.log_weights,
        "reverse_log_weights": -reverse.log_weights,
        "sizes": (forward.effective_sample_size, reverse.effective_sample_size),
        "num_starts": (forward.num_starts, reverse.num_starts),
        "is_resampled": forward.is_resampled | reverse.is_resampled,
    }


def log_weight_increment(before: Any, after: Any) -> Any:
    """Return the log-weight gained by a change of temperature, from the potentials at both.

    It is minus infinity where the new density is zero, also where the old one was.
    """
    xp = array_namespace(before)
    lost = after == math.inf
    return xp.where(lost, xp.full_like(before, -math.inf), before - after)


def describe_stuck_draws(distribution: Any, sampler: Any, acceptance_rate: Any) -> Iterator[str]:
    """Yield a warning if the chains that make draws of a distribution hardly moved on average."""
    rate = float(array_namespace(acceptance_rate).min(acceptance_rate))
    if rate < _STUCK:
        yield (
            f"{sampler} accepted {rate:.1%} of the moves that make draws of {distribution}: the "
            "upper end of the bracket is no better than the weights of the forward paths. Lower "
            "its `step_size`, or set a `target_accept_prob`."
        )


def _interpolate(at: Any, knots: Any, values: Any) -> Any:
    """Evaluate the piecewise linear function through ``(knots, values)``, ``(J + 1, *batch)``."""
    xp = array_namespace(knots)
    gaps = knots[1:] - knots[:-1]
    tiny = xp.full_like(gaps, xp.finfo(gaps.dtype).smallest_normal)
    passed = (at[:, None] - knots[:-1]) / xp.where(gaps > 0, gaps, tiny)
    return values[0] + xp.sum(xp.clip(passed, 0.0, 1.0) * (values[1:] - values[:-1]), axis=1)
