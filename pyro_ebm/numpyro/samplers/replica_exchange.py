"""Replica exchange."""

from jax import Array, random

from pyro_ebm.core.samplers import replica_exchange as core
from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.numpyro.samplers.base import Transition
from pyro_ebm.numpyro.samplers.target import Potential


class ReplicaExchange(core.ReplicaExchange):
    """Levels of chains that swap, as :class:`pyro_ebm.core.samplers.replica_exchange` has them.

    Example:
        >>> from pyro_ebm.numpyro import HMC
        >>> ReplicaExchange(HMC(0.1), temperatures=[4, 1]).step_size
        0.1
    """

    def step(self, rng_key: Array, potential: Potential, state: ChainState) -> Transition:
        move_key, swap_key = random.split(rng_key)
        stacked, temperature = core.stack_levels(self.temperatures, state)
        tempered = core.Tempered(potential, temperature)
        moved, info = self.kernel.step(move_key, tempered, stacked)
        shape = moved.potential[1:].shape
        uniform = random.uniform(swap_key, shape, moved.potential.dtype)
        return core.swap_levels(state, moved, info, temperature, uniform)
