"""Gibbs with gradients on tensors."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_ebm.core.numerics import as_real
from pyro_ebm.core.samplers import dynamics
from pyro_ebm.core.samplers import gibbs_with_gradients as core
from pyro_ebm.pyro.samplers.base import Transition, initial_state
from pyro_ebm.pyro.samplers.mala import MALA
from pyro_ebm.pyro.samplers.target import Potential, value_and_gradient

_MALA = MALA()


@dataclass(frozen=True)
class GibbsWithGradients(core.GibbsWithGradients):
    """Gibbs sampling of the one code that the gradient favours, for hundreds of columns.

    Arguments: :class:`pyro_ebm.core.samplers.gibbs_with_gradients.GibbsWithGradients`.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from pyro_ebm.pyro import EnergyBased, GibbsWithGradients, run_chains
        >>> base = dist.Bernoulli(0.5 * torch.ones(4)).to_event(1)
        >>> pairs = EnergyBased(lambda x: -(x[:, ::2] * x[:, 1::2]).sum(-1), base)
        >>> options = dict(num_samples=50, thinning=4, progress_bar=False)
        >>> run_chains(GibbsWithGradients(), pairs, **options).samples.shape
        torch.Size([4, 50, 4])
    """

    numeric: Any = _MALA

    def init(self, potential: Potential, position: Tensor) -> dynamics.ChainState:
        self.check_bound()
        if self.has_numbers:
            return self.numeric.init(potential, position)
        return initial_state(potential, as_real(position), 1.0)._replace(position=position)

    def step(self, potential: Potential, state: dynamics.ChainState) -> Transition:
        if not self.has_numbers:
            return self._change(potential, state)
        numbers, info = self.numeric.step(potential, self.holding_codes(state))
        changed, _ = self._change(potential, numbers)
        return state.moved(*changed[:3]), info

    @torch.no_grad()
    def _change(self, potential: Potential, state: dynamics.ChainState) -> Transition:
        shape = (*state.potential.shape, core.num_changes(self.columns))
        noise = -torch.empty(shape).to(state.potential).exponential_().log()
        position, log_proposal = core.propose(state, self.columns, noise)
        proposal = position, *value_and_gradient(potential, as_real(position))
        log_ratio = core.log_acceptance(state, proposal, log_proposal, self.columns)
        state, info = dynamics.decide(state, proposal, log_ratio, torch.rand_like(state.potential))
        return state, core.never_diverging(info)
