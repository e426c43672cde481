"""Warm-up of chains, step by step."""

from typing import Any

import torch

from pyro_ebm.core.samplers import warmup as core
from pyro_ebm.core.samplers.dynamics import ChainState, TransitionInfo
from pyro_ebm.pyro.samplers.base import Sampler


def prepare_state(sampler: Sampler, state: ChainState) -> ChainState:
    """Broadcast scales to the shape that warm-up gives them."""
    if sampler.adapt_mass_matrix:
        state = state._replace(scale=state.scale.expand(state.position.shape[1:]).clone())
    return state._replace(hotter=tuple(prepare_state(sampler, level) for level in state.hotter))


class Warmup:
    """Tunes step size and scales during warm-up, without synchronizing the device."""

    def __init__(
        self, sampler: Sampler, state: ChainState, num_warmup: int, temperature: float = 1.0
    ) -> None:
        self.sampler = sampler
        self.temperature = temperature
        self.num_warmup = num_warmup
        self.windows = core.warmup_windows(num_warmup) if sampler.adapt_mass_matrix else []
        self.averaging = core.begin_dual_averaging(state.step_size)
        self.moments = core.begin_moments(state)
        self.brakes: Any = 1.0
        levels = zip(state.hotter, core.hotter_temperatures(sampler, state), strict=True)
        self.hotter = [Warmup(sampler, level, num_warmup, each) for level, each in levels]

    def braked(self, state: ChainState) -> ChainState:
        """State with the step sizes that its chains can take now."""
        if not torch.is_tensor(self.brakes):
            return state
        levels = zip(self.hotter, state.hotter, strict=True)
        hotter = tuple(warmup.braked(level) for warmup, level in levels)
        return state._replace(step_size=state.step_size * self.brakes, hotter=hotter)

    def adapt(self, index: int, state: ChainState, info: TransitionInfo) -> ChainState:
        """Update what has been learned with step ``index``, and the state with that."""
        target = self.sampler.target_accept_prob
        if target is not None:
            rate = info.acceptance_rate.mean(0)
            self.averaging = core.dual_averaging(self.averaging, rate, target)
            state = state._replace(step_size=self.averaging.log_step_size.exp())
            is_braked = index + 1 < core.num_braked(self.num_warmup)
            brakes = self.brakes * torch.ones_like(info.acceptance_rate)
            self.brakes = core.brake(brakes, info.acceptance_rate) if is_braked else 1.0
        if self.windows and index >= self.windows[0][0]:
            self.moments = core.update_moments(self.moments, state)
            if index + 1 == self.windows[0][1]:
                scale = core.learned_scale(self.moments, state, self.temperature)
                state = state._replace(scale=scale)
                self.moments = core.begin_moments(state)
                self.averaging = core.restart_dual_averaging(
                    self.sampler, state, self.averaging, self.temperature
                )
                self.windows = self.windows[1:]
                if target is not None:
                    state = state._replace(step_size=self.averaging.log_step_size.exp())
        if target is not None and index + 1 == self.num_warmup:
            state = state._replace(step_size=core.average_step_size(self.averaging))
        levels = zip(self.hotter, state.hotter, info.hotter, strict=True)
        return state._replace(hotter=tuple(w.adapt(index, s, i) for w, s, i in levels))
