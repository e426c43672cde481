"""Runs of chains: their start, the draws that are kept, and their statistics."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.samplers.checks import check_init_codes, check_init_shape, check_start
from pyro_ebm.core.samplers.dynamics import ChainState, TransitionInfo
from pyro_ebm.core.samplers.gibbs import numeric_mask, of_numbers
from pyro_ebm.core.samplers.local_units import local_units
from pyro_ebm.core.samplers.settings import Kernel
from pyro_ebm.core.samplers.target import HasPotential, check_rows_once
from pyro_ebm.core.samplers.warmup import adjusted_kernel

Evaluated = tuple[ChainState, tuple[Any, Any]]
# Longest move from data, in standard deviations of the data.
_LONGEST_MOVE = 0.5


@dataclass(frozen=True, eq=False)
class ShortRun:
    """Last values of some chains, and their mean acceptance.

    Attributes:
        samples: Positions or values.
        acceptance_rate: A scalar; 1 for kernels without acceptance, None without moves.
    """

    samples: Any
    acceptance_rate: Any


def begin_short_run(
    sampler: Any, state: ChainState, own_ndim: int, *, from_data: bool
) -> tuple[ChainState, Any]:
    """Return a state with step sizes to be tuned, and what bounds them.

    The last ``own_ndim`` dimensions of chains have step sizes of their own, ``from_data`` within
    the spread of the positions.
    """
    longest = longest_step_size(sampler, state) if from_data else None
    return _with_step_sizes(sampler, state, own_ndim, longest), longest


def _with_step_sizes(sampler: Any, state: ChainState, own_ndim: int, longest: Any) -> ChainState:
    if not is_tuned(sampler):
        return state
    shape = state.potential.shape[state.potential.ndim - own_ndim :]
    hotter = tuple(_with_step_sizes(sampler, level, own_ndim, None) for level in state.hotter)
    step_size = array_namespace(state.potential).broadcast_to(state.step_size, shape)
    return state._replace(step_size=_at_most(longest, step_size), hotter=hotter)


def tuned(sampler: Any, state: ChainState, info: TransitionInfo, longest: Any = None) -> ChainState:
    r"""Tune the step size of a short run after each step: :math:`\log h \mathrel{+}= a - a^*`.

    It is at most ``longest``. Kernels with a step size of their own keep it.
    """
    if not is_tuned(sampler):
        return state
    xp, rate = array_namespace(info.acceptance_rate), info.acceptance_rate
    rate = xp.mean(rate, axis=tuple(range(rate.ndim - state.step_size.ndim)))
    factor = xp.exp(rate - sampler.target_accept_prob)
    hotter = tuple(tuned(sampler, *level) for level in zip(state.hotter, info.hotter, strict=True))
    return state._replace(step_size=_at_most(longest, state.step_size * factor), hotter=hotter)


def _at_most(longest: Any, step_size: Any) -> Any:
    return step_size if longest is None else array_namespace(step_size).minimum(step_size, longest)


def longest_step_size(sampler: Any, state: ChainState) -> Any:
    """Bound the step size of a run from data by their spread, if any; None if it is not tuned.

    An energy that has learned little is as wide as its base. Draws that fill a wide base at once
    teach it far walls first, and detail late.
    """
    kernel, xp = adjusted_kernel(sampler), array_namespace(state.position)
    if kernel is None or not is_tuned(sampler):
        return None
    rows = xp.reshape(state.position, (math.prod(state.potential.shape), -1))
    spread = local_units(rows, xp.reshape(state.potential, (-1,)), None, 0.0)
    columns = getattr(getattr(sampler, "kernel", sampler), "columns", ())
    counts = numeric_mask(columns, spread) if columns else xp.ones_like(spread)
    variance = xp.sum(counts * spread**2) / xp.sum(counts)
    longest = kernel.own_step_size(_LONGEST_MOVE**2 / 2 * variance)
    return xp.where(variance > 0, longest, xp.full_like(longest, math.inf))


def is_tuned(sampler: Any) -> bool:
    """Whether a kernel has a target of acceptance, and no step size of its own."""
    has_target = sampler.target_accept_prob is not None
    return has_target and getattr(sampler, "step_size", None) is None


def start_chains(
    sampler: Any,
    distribution: Any,
    target: Any,
    num_chains: int,
    init: Any,
    begin: Callable[[Any], Evaluated],
    *,
    probes: bool,
    is_known: Callable[[Any], bool],
) -> ChainState:
    """Start chains at initial values, or at the state of an earlier run.

    Args:
        sampler: Their kernel.
        distribution: Any distribution.
        target: Its target.
        num_chains: Number of chains.
        init: Values or a state.
        begin: Makes the state at a position, with potential and gradient there.
        probes: Whether to probe rows of an energy.
        is_known: Whether the host knows the numbers in an array.
    """
    before = init if isinstance(init, ChainState) else None
    value = init if before is None else target.value(before.position)
    check_init_shape(value.shape, distribution, num_chains)
    if target.columns is not None and is_known(value):
        check_init_codes(value, target.columns)
    if probes and isinstance(distribution, HasPotential):
        check_rows_once(distribution, value)
    # Evaluated anew in any case: the energy may have been trained since.
    state, evaluated = begin(target.position(value) if before is None else before.position)
    if is_known(evaluated[0]):
        potential, gradient = evaluated
        if target.columns is not None and gradient is not None:
            gradient = of_numbers(target.columns, gradient, potential.ndim)
        check_start(distribution, potential, gradient)
        if isinstance(sampler, Kernel):
            sampler.check_start(state.position, evaluated[1], lambda at: begin(at)[1][1])
    if before is None:
        return state
    if len(before.hotter) != len(state.hotter):
        raise ValueError(
            f"Expected `init` to be a state of the same sampler, with {len(state.hotter)} hotter "
            f"levels, got {len(before.hotter)}."
        )
    hotter = [_at(level, begin(level.position)[0]) for level in before.hotter]
    return _at(before, state)._replace(hotter=tuple(hotter))


def kept_draw(
    potential: Callable[[Any], Any], state: ChainState, info: TransitionInfo
) -> tuple[Any, Any, dict[str, Any]]:
    """Position, potential and statistics of a draw that is kept."""
    if state.potential is not None:
        return state.position, state.potential, info.of_draw()
    value = potential(state.position)
    diverging = info.diverging | ~array_namespace(value).isfinite(value)
    return state.position, value, info._replace(diverging=diverging).of_draw()


def summarize_draws(
    distribution: Any,
    target: Any,
    draws: tuple[Any, Any, dict[str, Any]],
    step_size: Any,
) -> tuple[Any, dict[str, Any]]:
    """Return samples and statistics from draws of shape ``(num_chains, num_samples, ...)``."""
    position, potential, info = draws
    samples, lp = target.value(position), -potential
    if not target.is_unconstrained:
        lp = lp - target.log_volume(position, samples)
    statistics = {"lp": lp, **info}
    statistics["step_size"] = array_namespace(lp).broadcast_to(step_size, lp.shape)
    if isinstance(distribution, HasPotential) and distribution.base is not None:
        statistics["ebm_energy"] = distribution.base.log_prob(samples) - lp
    return samples, statistics


def _at(before: ChainState, state: ChainState) -> ChainState:
    """State with the potential and the gradient of another at the same positions."""
    return before._replace(potential=state.potential, gradient=state.gradient)
