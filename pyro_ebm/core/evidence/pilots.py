"""Pilot chains of a path: step sizes, and units of coordinates, that suit each temperature."""

from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.local_units import in_local_units, learns_scales
from pyro_ebm.core.samplers.warmup import fitting_step_size


def begin_pilots(sampler: Any, state: ChainState, *, learns: bool) -> ChainState:
    """Start pilots at a step size for each element of a batch, in local units if they learn any."""
    step_size = state.step_size
    if learns and learns_scales(sampler):
        state = in_local_units(sampler, state)
        step_size = fitting_step_size(sampler, state, step_size)
    none = array_namespace(state.potential).zeros_like(state.potential[0, ...])
    return state._replace(step_size=step_size + none)


def tune_log_step_size(log_step_size: Any, acceptance_rate: Any, target: float) -> Any:
    """Return the log of the next step size of a pilot run."""
    return log_step_size + (acceptance_rate - target)
