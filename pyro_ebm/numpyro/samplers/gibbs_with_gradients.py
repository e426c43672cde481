"""Gibbs with gradients."""

from dataclasses import dataclass
from typing import Any

from jax import Array, random

from pyro_ebm.core.numerics import as_real
from pyro_ebm.core.samplers import dynamics
from pyro_ebm.core.samplers import gibbs_with_gradients as core
from pyro_ebm.numpyro.samplers.base import Transition, initial_state
from pyro_ebm.numpyro.samplers.mala import MALA
from pyro_ebm.numpyro.samplers.target import Potential, value_and_gradient

_MALA = MALA()


@dataclass(frozen=True)
class GibbsWithGradients(core.GibbsWithGradients):
    """Settings are those of :class:`pyro_ebm.core.samplers.gibbs_with_gradients`.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> from pyro_ebm.numpyro import EnergyBased, GibbsWithGradients, run_chains
        >>> base = dist.Bernoulli(0.5 * jnp.ones(4)).to_event(1)
        >>> chain = EnergyBased(lambda x: -(x[:, 1:] * x[:, :-1]).sum(-1) * 1.0, base)
        >>> options = dict(num_samples=50, thinning=4, progress_bar=False)
        >>> run_chains(jax.random.key(0), GibbsWithGradients(), chain, **options).samples.shape
        (4, 50, 4)
    """

    numeric: Any = _MALA

    def init(self, potential: Potential, position: Array) -> dynamics.ChainState:
        self.check_bound()
        if self.has_numbers:
            return self.numeric.init(potential, position)
        return initial_state(potential, as_real(position), 1.0)._replace(position=position)

    def step(self, rng_key: Array, potential: Potential, state: dynamics.ChainState) -> Transition:
        if not self.has_numbers:
            return self._change(rng_key, potential, state)
        number_key, code_key = random.split(rng_key)
        numbers, info = self.numeric.step(number_key, potential, self.holding_codes(state))
        changed, _ = self._change(code_key, potential, numbers)
        return state.moved(*changed[:3]), info

    def _change(
        self, rng_key: Array, potential: Potential, state: dynamics.ChainState
    ) -> Transition:
        propose_key, accept_key = random.split(rng_key)
        shape, dtype = state.potential.shape, state.potential.dtype
        noise = random.gumbel(propose_key, (*shape, core.num_changes(self.columns)), dtype)
        position, log_proposal = core.propose(state, self.columns, noise)
        proposal = position, *value_and_gradient(potential, as_real(position))
        log_ratio = core.log_acceptance(state, proposal, log_proposal, self.columns)
        uniform = random.uniform(accept_key, shape, dtype)
        state, info = dynamics.decide(state, proposal, log_ratio, uniform)
        return state, core.never_diverging(info)
