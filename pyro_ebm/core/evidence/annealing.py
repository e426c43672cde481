r"""Annealing from a base to a distribution: where the temperatures lie, and the steps on the way.

The path is :math:`p_\beta \propto e^{-\beta E} p_0`, with :math:`\beta` from 0 to 1. A short pilot
run over :func:`pilot_inverse_temperatures` learns where :math:`\beta` has to move slowly and which
step size suits each temperature; the weights come from other chains, which use what was learned.
"""

import math
from typing import Any, NamedTuple

from array_api_compat import array_namespace

__all__ = [
    "Schedule",
    "log_weight_increment",
    "mean_where",
    "pilot_inverse_temperatures",
    "schedule",
    "spread_where",
    "tuned",
]

# Small enough at the start for energies that vary by thousands of nats over the base.
_PILOT_TEMPERATURES, _PILOT_POWER = 200, 4
# Share of the temperatures that is spread evenly whatever the pilot run says.
_EVEN_SHARE = 0.1


class Schedule(NamedTuple):
    r"""Temperatures of a run, and how far chains step at each.

    Attributes:
        inverse_temperatures: :math:`\beta_0 = 0, \dots, \beta_K = 1`, shape ``(K + 1, *batch)``.
        step_sizes: Same shape.
    """

    inverse_temperatures: Any
    step_sizes: Any

    def reversed(self) -> "Schedule":
        """The same from the distribution to the base."""
        return Schedule(*(array_namespace(part).flip(part, axis=0) for part in self))


def pilot_inverse_temperatures() -> list[float]:
    r""":math:`\beta_j = (j / 200)^4`: dense where a base far from the distribution needs it."""
    return [(j / _PILOT_TEMPERATURES) ** _PILOT_POWER for j in range(_PILOT_TEMPERATURES + 1)]


def schedule(
    shares: Any, inverse_temperatures: Any, distances: Any, log_step_sizes: Any
) -> Schedule:
    r"""Temperatures that are equally far apart, as the pilot run measured distances.

    The distance between two neighbours is the standard deviation of the log-weight that chains
    gain there, :math:`(\beta' - \beta)\, \mathrm{sd}_\beta(E)`. Equal ones make the variance of
    the log-weights smallest for their number where chains mix at once. A tenth of the temperatures
    is spread evenly, in case the pilot run overlooked something.

    Args:
        shares: :math:`k / K`, shape ``(K + 1,)``.
        inverse_temperatures: :math:`\beta_j` of the pilot run, shape ``(J + 1,)``.
        distances: From :math:`\beta_0` to :math:`\beta_j`, shape ``(J + 1, *batch)``.
        log_step_sizes: Found at :math:`\beta_j`, shape ``(J + 1, *batch)``.

    References:
        | Measuring thermodynamic length (Crooks, 2007)
        | Annealing between distributions by averaging moments (Grosse, Maddison and
          Salakhutdinov, 2013)
    """
    xp = array_namespace(distances)
    batch = (1,) * (distances.ndim - 1)
    even = xp.reshape(inverse_temperatures, (-1, *batch)) + xp.zeros_like(distances)
    # Where the energy is constant there is no distance, and every schedule is as good.
    total = xp.where(distances[-1] > 0, distances[-1], xp.ones_like(distances[-1]))
    covered = (1.0 - _EVEN_SHARE) * distances / total + _EVEN_SHARE * even
    covered = covered / covered[-1]
    at = xp.reshape(shares, (-1, *batch))
    inside = _interpolate(at[1:-1], covered, even)
    ends = xp.zeros_like(even[:1]), xp.ones_like(even[:1])
    step_sizes = xp.exp(_interpolate(at, covered, log_step_sizes))
    return Schedule(xp.concat((ends[0], inside, ends[1])), step_sizes)


def tuned(log_step_size: Any, acceptance: Any, target: float) -> Any:
    """Log of the next step size of a pilot run, which follows what each temperature asks for."""
    return log_step_size + (acceptance - target)


def log_weight_increment(before: Any, after: Any) -> Any:
    """What chains gain by a change of temperature, from their potentials before and after it.

    Minus infinity where there is no density after it, also for chains that had none before.
    """
    xp = array_namespace(before)
    lost = after == math.inf
    return xp.where(lost, xp.full_like(before, -math.inf), before - after)


def mean_where(keep: Any, x: Any) -> Any:
    """Mean over those chains (the first axis) that are kept; zero where none is."""
    xp = array_namespace(x)
    count = xp.sum(xp.astype(keep, x.dtype), axis=0)
    total = xp.sum(xp.where(keep, x, xp.zeros_like(x)), axis=0)
    return total / xp.where(count > 0, count, xp.ones_like(count))


def spread_where(keep: Any, x: Any) -> Any:
    """Standard deviation over those chains (the first axis) that are kept."""
    return mean_where(keep, (x - mean_where(keep, x)) ** 2) ** 0.5


def _interpolate(at: Any, knots: Any, values: Any) -> Any:
    """Piecewise linear function through ``(knots, values)``, both ``(J + 1, *batch)``."""
    xp = array_namespace(knots)
    gaps = knots[1:] - knots[:-1]
    tiny = xp.full_like(gaps, xp.finfo(gaps.dtype).smallest_normal)
    passed = (at[:, None] - knots[:-1]) / xp.where(gaps > 0, gaps, tiny)
    return values[0] + xp.sum(xp.clip(passed, 0.0, 1.0) * (values[1:] - values[:-1]), axis=1)
