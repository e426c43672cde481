"""Gibbs sweeps as scans over columns."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array, lax, random

from pyro_ebm.core.samplers import gibbs as core
from pyro_ebm.core.samplers.dynamics import ChainState, TransitionInfo
from pyro_ebm.numpyro.samplers.base import Transition
from pyro_ebm.numpyro.samplers.mala import MALA
from pyro_ebm.numpyro.samplers.target import Potential

_MALA = MALA()


@dataclass(frozen=True)
class Gibbs(core.Gibbs):
    """Gibbs sampling, as :class:`pyro_ebm.core.samplers.gibbs.Gibbs` describes it.

    Example:
        >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
        >>> from pyro_ebm.numpyro import EnergyBased, run_chains
        >>> base = dist.Bernoulli(0.5 * jnp.ones(4)).to_event(1)
        >>> pairs = EnergyBased(lambda x: -(x[:, ::2] * x[:, 1::2]).sum(-1) * 1.0, base)
        >>> options = dict(num_samples=50, progress_bar=False)
        >>> run_chains(jax.random.key(0), Gibbs(), pairs, **options).samples.shape
        (4, 50, 4)
    """

    numeric: Any = _MALA

    def init(self, potential: Potential, position: Array) -> ChainState:
        self.check_bound()
        if self.has_numbers:
            return self.numeric.init(potential, position)
        value = potential(position)
        one, index = jnp.ones((), value.dtype), jnp.zeros((), int)
        return ChainState(position, value, None, None, one, one, index)

    def step(self, rng_key: Array, potential: Potential, state: ChainState) -> Transition:
        number_key, sweep_key = random.split(rng_key)
        if not self.has_numbers:
            moved = self._sweep(sweep_key, potential, state.position, state.potential)
            still = jnp.zeros(state.potential.shape, bool)
            return state.moved(*moved, None), TransitionInfo(jnp.ones_like(moved[1]), still)
        held = self.holding_codes(state)
        moving, info = self.numeric.step(number_key, potential, held)
        position, _ = self._sweep(sweep_key, potential, *moving[:2])
        fresh = self.numeric.init(potential, position)
        return state.moved(*fresh[:3]), info

    def _sweep(
        self, rng_key: Array, potential: Potential, position: Array, value: Array
    ) -> tuple[Array, Array]:
        event_shape = position.shape[value.ndim :]
        chains = position.reshape((*value.shape, len(self.columns))), value
        for size, columns in core.blocks(self.columns):

            def turn(chains: Any, column: Array, size: int = size) -> tuple[Any, None]:
                flat, value = chains
                others = core.alternatives(flat, column, size)
                others = potential(others.reshape((*others.shape[:-1], *event_shape)))
                key = random.fold_in(rng_key, column)
                noise = random.gumbel(key, (size, *value.shape), value.dtype)
                return core.choose(flat, column, size, value, others, noise), None

            chains, _ = lax.scan(turn, chains, jnp.arange(columns.start, columns.stop))
        return chains[0].reshape(position.shape), chains[1]


def default_kernel(distribution: Any, numeric: MALA = _MALA) -> Gibbs | MALA:
    return Gibbs(numeric) if distribution.support.is_discrete else numeric
