"""Warm-up of chains: a step size from acceptance rates, scales from the chains' own spread."""

from pyro_ebm.core.samplers.warmup import (
    average_step_size,
    begin_dual_averaging,
    begin_moments,
    dual_averaging,
    regularized_scale,
    update_moments,
    warmup_windows,
)
from pyro_ebm.pyro.samplers import ChainState, Sampler, TransitionInfo

__all__ = ["Warmup"]


class Warmup:
    """Tunes step size and scales while the chains warm up; without a sync of the device.

    Args:
        sampler: Says what is tuned.
        state: Where the chains start, shape ``(num_chains, *batch, *event)``.
        num_warmup: Steps of the warm-up.
    """

    def __init__(self, sampler: Sampler, state: ChainState, num_warmup: int) -> None:
        self.sampler = sampler
        self.num_warmup = num_warmup
        self.windows = warmup_windows(num_warmup) if sampler.adapt_scale else []
        self.averaging = begin_dual_averaging(state.step_size)
        self.moments = begin_moments(state.position)

    def adapt(self, index: int, state: ChainState, info: TransitionInfo) -> ChainState:
        """The state after step ``index`` with what has been learned from it."""
        target = self.sampler.target_acceptance
        if target is not None:
            rate = info.acceptance_rate.mean(0)
            self.averaging = dual_averaging(self.averaging, rate, target)
            state = state._replace(step_size=self.averaging.log_step_size.exp())
        if self.windows and index >= self.windows[0][0]:
            self.moments = update_moments(self.moments, state.position)
            if index + 1 == self.windows[0][1]:
                state = state._replace(scale=regularized_scale(self.moments))
                self.moments = begin_moments(state.position)
                self.averaging = begin_dual_averaging(average_step_size(self.averaging))
                self.windows = self.windows[1:]
        if target is not None and index + 1 == self.num_warmup:
            state = state._replace(step_size=average_step_size(self.averaging))
        return state
