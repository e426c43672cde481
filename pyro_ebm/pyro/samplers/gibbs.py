"""Gibbs sampling of discrete and mixed columns."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_ebm.core.samplers import gibbs as core
from pyro_ebm.core.samplers.dynamics import ChainState, TransitionInfo
from pyro_ebm.pyro.samplers.base import Transition
from pyro_ebm.pyro.samplers.mala import MALA
from pyro_ebm.pyro.samplers.target import Potential

_MALA = MALA()


@dataclass(frozen=True)
class Gibbs(core.Gibbs):
    """Gibbs sampling of columns of codes, with a kernel beside it for columns of numbers.

    Method and arguments: :class:`pyro_ebm.core.samplers.gibbs.Gibbs`.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from pyro_ebm.pyro import EnergyBased, run_chains
        >>> base = dist.Bernoulli(0.5 * torch.ones(4)).to_event(1)
        >>> pairs = EnergyBased(lambda x: -(x[:, ::2] * x[:, 1::2]).sum(-1), base)
        >>> chains = run_chains(Gibbs(), pairs, num_samples=50, progress_bar=False)
        >>> chains.samples.shape
        torch.Size([4, 50, 4])
    """

    numeric: Any = _MALA

    def init(self, potential: Potential, position: Tensor) -> ChainState:
        self.check_bound()
        if self.has_numbers:
            return self.numeric.init(potential, position)
        value = potential(position).detach()
        one = value.new_ones(())
        return ChainState(position, value, None, None, one, one, 0)

    def step(self, potential: Potential, state: ChainState) -> Transition:
        if not self.has_numbers:
            moved = self._sweep(potential, state.position, state.potential)
            still = torch.zeros_like(state.potential, dtype=torch.bool)
            return state.moved(*moved, None), TransitionInfo(torch.ones_like(moved[1]), still)
        moving, info = self.numeric.step(potential, self.holding_codes(state))
        position, _ = self._sweep(potential, *moving[:2])
        fresh = self.numeric.init(potential, position)
        return state.moved(*fresh[:3]), info

    @torch.no_grad()
    def _sweep(
        self, potential: Potential, position: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        event_shape = position.shape[value.ndim :]
        flat = position.reshape((*value.shape, len(self.columns)))
        for size, columns in core.blocks(self.columns):
            for column in columns:
                others = core.alternatives(flat, column, size)
                others = potential(others.reshape(others.shape[:-1] + event_shape))
                noise = -torch.empty((size, *value.shape)).to(value).exponential_().log()
                flat, value = core.choose(flat, column, size, value, others, noise)
        return flat.reshape(position.shape), value


def default_kernel(distribution: Any, numeric: MALA = _MALA) -> Gibbs | MALA:
    """Return the kernel that moves draws where none is given; ``numeric`` moves numbers."""
    return Gibbs(numeric) if distribution.support.is_discrete else numeric
