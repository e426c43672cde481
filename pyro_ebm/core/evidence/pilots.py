"""Pilot chains of a path: step sizes, and units of coordinates, that suit each temperature."""

from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.warmup import fitting_step_size, local_scale


def begin_pilots(sampler: Any, state: ChainState, *, learns: bool) -> ChainState:
    """Start pilots at a step size for each element of a batch, in local units if they learn any."""
    step_size = state.step_size
    if learns and learns_scales(sampler):
        state = in_local_units(sampler, state)
        step_size = fitting_step_size(sampler, state, step_size)
    none = array_namespace(state.potential).zeros_like(state.potential[0, ...])
    return state._replace(step_size=step_size + none)


def in_local_units(sampler: Any, state: ChainState) -> ChainState:
    """Measure coordinates in the units of chains at one temperature, if the kernel learns any."""
    if not learns_scales(sampler):
        return state
    xp, (position, potential, gradient, *_) = array_namespace(state.potential), state
    event = (1,) * (position.ndim - potential.ndim)
    alive = xp.reshape(xp.isfinite(potential), (*potential.shape, *event))
    spread = masked_std(alive, position)
    scale = xp.where(spread > 0, spread, state.scale)
    if gradient is not None:
        scale = local_scale(spread, masked_std(alive, gradient), scale)
    return state._replace(scale=scale)


def learns_scales(sampler: Any) -> bool:
    """Return whether a kernel tunes its step size in units that a warm-up learns."""
    return (
        sampler.target_accept_prob is not None
        and sampler.adapt_mass_matrix
        and not hasattr(sampler, "temperatures")
    )


def tune_log_step_size(log_step_size: Any, acceptance_rate: Any, target: float) -> Any:
    """Return the log of the next step size of a pilot run."""
    return log_step_size + (acceptance_rate - target)


def masked_mean(keep: Any, x: Any) -> Any:
    """Return the mean over the chains (the first axis) that are kept; zero where none is."""
    xp = array_namespace(x)
    count = xp.sum(xp.astype(keep, x.dtype), axis=0)
    total = xp.sum(xp.where(keep, x, xp.zeros_like(x)), axis=0)
    return total / xp.where(count > 0, count, xp.ones_like(count))


def masked_std(keep: Any, x: Any) -> Any:
    """Return the standard deviation over the chains (the first axis) that are kept."""
    return masked_mean(keep, (x - masked_mean(keep, x)) ** 2) ** 0.5
