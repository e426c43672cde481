r"""Warm-up of chains: a step size from acceptance rates, scales from values and gradients.

All chains share what is learned: many short chains adapt as well as a few long ones. Elements of a
batch are separate targets and share nothing.
"""

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

from array_api_compat import array_namespace

from pyro_ebm.core.numerics import as_real, at_least_single
from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.local_units import local_scale

# Constants of Hoffman and Gelman: how fast early errors are forgotten, and how far steps go.
_STABILIZATION, _SHRINKAGE, _DECAY = 10.0, 0.05, 0.75
# Stan's warm-up: a start and an end for the step size alone, windows that double between them.
_START, _FIRST_WINDOW, _END = 75, 25, 50
# A gradient that changes by a smaller share is constant.
_FLAT = 1e-4
# Below this acceptance a move counts as hopeless.
_HOPELESS = 1e-2


def initial_step_size(potential: Any, gradient: Any) -> Any:
    r"""Compute a Langevin step size by a rule of thumb, from the gradients at the start.

    .. math:: h = d^{2/3} / \overline{|\nabla U|^2}

    At draws of a Gaussian of variance :math:`\sigma^2` this is :math:`\sigma^2 d^{-1/3}`, which
    scales as the optimal step size does. A leapfrog step is :math:`\sqrt{2 h}`. All chains share
    the number, which is 1 where the gradients vanish or are not finite.

    References:
        | Optimal scaling of discrete approximations to Langevin diffusions (Roberts and
          Rosenthal, 1998)
    """
    xp = array_namespace(gradient)
    num_chains = math.prod(potential.shape)
    num_coordinates = math.prod(gradient.shape[potential.ndim :])
    step_size = num_coordinates ** (2 / 3) * num_chains / xp.sum(gradient**2)
    usable = xp.isfinite(step_size) & (step_size > 0)
    return xp.where(usable, step_size, xp.ones_like(step_size))


def step_size_in_scales(gradient: Any, scale: Any, num_chain_dims: int) -> Any:
    r"""Compute a Langevin step size for coordinates measured in scales, shape ``(*batch,)``.

    The rule of thumb, of :math:`s \nabla U`, but at most :math:`d^{-1/3}`, that of a Gaussian: few
    chains near its mode would make it too large.
    """
    xp, num_coordinates = array_namespace(gradient), math.prod(gradient.shape[num_chain_dims:])
    squares = xp.where(scale == 0, xp.zeros_like(gradient), scale * gradient) ** 2
    axes = (0, *range(num_chain_dims, gradient.ndim))
    step_size = num_coordinates ** (2 / 3) * gradient.shape[0] / xp.sum(squares, axis=axes)
    most = xp.full_like(step_size, num_coordinates ** (-1 / 3))
    return xp.where((step_size > 0) & (step_size < most), step_size, most)


@runtime_checkable
class Adjusted(Protocol):
    """Kernel whose step size follows from that of Langevin dynamics."""

    def own_step_size(self, step_size: Any) -> Any:
        """Return the kernel's step size."""
        ...


def adjusted_kernel(sampler: Any) -> Adjusted | None:
    """Return the kernel of numbers, perhaps inside of replica exchange or beside one of codes."""
    kernel = getattr(sampler, "kernel", sampler)
    kernel = getattr(kernel, "numeric", kernel)
    return kernel if isinstance(kernel, Adjusted) else None


class DualAveraging(NamedTuple):
    """State of the search for a step size.

    Attributes:
        log_step_size: Log of the step size to try next.
        log_average: Log of the average, the final step size.
        error: Running mean of target minus acceptance.
        count: Updates so far.
        anchor: Log of the step size that trials are drawn towards.
    """

    log_step_size: Any
    log_average: Any
    error: Any
    count: Any
    anchor: Any


def begin_dual_averaging(step_size: Any) -> DualAveraging:
    """Start from step sizes, shape ``(*batch,)``; trials are drawn towards ten times that."""
    xp = array_namespace(step_size)
    zero = xp.zeros_like(step_size)
    log_step_size = xp.log(step_size)
    return DualAveraging(log_step_size, log_step_size, zero, zero, log_step_size + math.log(10.0))


def dual_averaging(state: DualAveraging, acceptance: Any, target: float) -> DualAveraging:
    r"""Update the step size to bring the acceptance, shape ``(*batch,)``, closer to its target.

    .. math::
        \bar H_m = \left(1 - \tfrac1{m + t_0}\right) \bar H_{m-1}
            + \tfrac1{m + t_0} (\alpha^* - \alpha_m), \quad
        \log h_m = \mu - \tfrac{\sqrt m}{\gamma} \bar H_m, \quad
        \log \bar h_m = m^{-\kappa} \log h_m + (1 - m^{-\kappa}) \log \bar h_{m-1}

    References:
        | The No-U-Turn sampler (Hoffman and Gelman, 2014), section 3.2
    """
    xp = array_namespace(acceptance)
    count = state.count + 1.0
    share = 1.0 / (count + _STABILIZATION)
    error = (1.0 - share) * state.error + share * (target - acceptance)
    log_step_size = state.anchor - xp.sqrt(count) / _SHRINKAGE * error
    weight = count**-_DECAY
    log_average = weight * log_step_size + (1.0 - weight) * state.log_average
    return DualAveraging(log_step_size, log_average, error, count, state.anchor)


def restart_dual_averaging(
    sampler: Any, state: Any, averaging: DualAveraging, temperature: float
) -> DualAveraging:
    """Search again in the units of new scales; the step size of the old ones may be far off."""
    step_size = average_step_size(averaging)
    return begin_dual_averaging(fitting_step_size(sampler, state, step_size, temperature))


def fitting_step_size(sampler: Any, state: Any, otherwise: Any, temperature: float = 1.0) -> Any:
    """Compute the step size of a kernel in the units of a state, by the rule of thumb."""
    kernel = adjusted_kernel(sampler)
    if kernel is None:
        return otherwise
    gradient = state.gradient / temperature
    found = step_size_in_scales(gradient, state.scale, state.potential.ndim)
    return kernel.own_step_size(found) + array_namespace(otherwise).zeros_like(otherwise)


def average_step_size(state: DualAveraging) -> Any:
    """Compute the final step size."""
    return array_namespace(state.log_average).exp(state.log_average)


def hotter_temperatures(sampler: Any, state: ChainState) -> tuple[float, ...]:
    """Return the temperatures of the hotter levels of replica exchange; none without it."""
    return sampler.temperatures[:-1] if state.hotter else ()


def brake(brakes: Any, acceptance: Any) -> Any:
    """Halve the brakes of chains that are sure to be rejected, and release the others by twofold.

    They multiply step sizes at the start of warm-up, shape ``(*chains,)``, and are at most 1: where
    gradients are steep, a chain would wait for ever at the step size that suits the others.
    """
    xp = array_namespace(acceptance)
    released = xp.minimum(2.0 * brakes, xp.ones_like(brakes))
    return xp.where(acceptance < _HOPELESS, 0.5 * brakes, released)


def num_braked(num_warmup: int) -> int:
    """Count the steps at the start of a warm-up in which chains have brakes."""
    return min(_START, num_warmup // 2)


class Moments(NamedTuple):
    """Number of draws of each chain, their running means, and sums of squared deviations.

    Of positions and, where the kernel has them, of gradients, in rows of a first axis.
    """

    count: Any
    mean: Any
    squares: Any


def begin_moments(state: ChainState) -> Moments:
    """Make moments of no draws, for states of ``num_chains`` chains."""
    rows = _positions_and_gradients(state)
    xp = array_namespace(rows)
    zero = xp.zeros_like(rows)
    return Moments(xp.zeros_like(xp.sum(zero)), zero, zero)


def update_moments(moments: Moments, state: ChainState) -> Moments:
    """Add the chains' positions and gradients, by Welford's method."""
    rows, count = _positions_and_gradients(state), moments.count + 1.0
    shift = rows - moments.mean
    mean = moments.mean + shift / count
    return Moments(count, mean, moments.squares + shift * (rows - mean))


def learned_scale(moments: Moments, state: ChainState, temperature: float) -> Any:
    """Return units of coordinates from the spread within chains, or those that states have.

    Gradients are those at temperature 1. Without them, units are from the spread of all draws:
    that within chains that have not mixed is too small.
    """
    xp, (count, mean, squares) = array_namespace(moments.mean), moments
    total = xp.sum(squares, axis=1)
    if state.gradient is None:
        total = total + count * xp.sum((mean - xp.mean(mean, axis=1, keepdims=True)) ** 2, axis=1)
    num_draws = xp.where(count > 0, count, xp.ones_like(count)) * mean.shape[1]
    spread = xp.sqrt(total / num_draws)
    scale = xp.where(spread[0, ...] > 0, spread[0, ...], state.scale)
    if state.gradient is not None:
        # The spread of a constant gradient is rounding.
        is_curved = spread[1, ...] > _FLAT * xp.mean(xp.abs(mean[1, ...]), axis=0)
        curvature = xp.where(is_curved, spread[1, ...], xp.zeros_like(spread[1, ...]))
        scale = local_scale(spread[0, ...], curvature / temperature, scale)
    return xp.astype(scale, as_real(state.position).dtype)


def _positions_and_gradients(state: ChainState) -> Any:
    position = as_real(state.position)
    xp = array_namespace(position)
    rows = xp.stack([x for x in (position, state.gradient) if x is not None])
    # Where a chain starts outside of the support there is no gradient.
    rows = xp.where(xp.isfinite(rows), rows, xp.zeros_like(rows))
    return at_least_single(rows)


def warmup_windows(num_warmup: int) -> list[tuple[int, int]]:
    """List the windows in which scales are learned, as first and one past the last step.

    Each window is twice as long as the one before: the last one no longer depends on the initial
    positions. Steps before and after the windows adapt the step size alone.
    """
    start, first, end = _START, _FIRST_WINDOW, _END
    if num_warmup < 20:
        return []
    if start + first + end > num_warmup:
        start, end = int(0.15 * num_warmup), int(0.25 * num_warmup)
        first = num_warmup - start - end
    windows, size, last = [], first, num_warmup - end
    while start < last:
        # Where no window of twice the size would fit, this one takes the rest.
        stop = last if start + 3 * size > last else start + size
        windows.append((start, stop))
        start, size = stop, 2 * size
    return windows
