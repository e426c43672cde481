"""Replica exchange."""

import torch

from pyro_ebm.core.samplers import replica_exchange as core
from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.pyro.samplers.base import Transition
from pyro_ebm.pyro.samplers.target import Potential


class ReplicaExchange(core.ReplicaExchange):
    """Replica exchange (parallel tempering), for chains between modes.

    Arguments: :class:`pyro_ebm.core.samplers.replica_exchange.ReplicaExchange`.

    Example:
        >>> from pyro_ebm.pyro import MALA
        >>> ReplicaExchange(MALA(), temperatures=(9, 3, 1)).temperatures
        (9.0, 3.0, 1.0)
    """

    def step(self, potential: Potential, state: ChainState) -> Transition:
        stacked, temperature = core.stack_levels(self.temperatures, state)
        moved, info = self.kernel.step(core.Tempered(potential, temperature), stacked)
        uniform = torch.rand_like(moved.potential[1:])
        return core.swap_levels(state, moved, info, temperature, uniform)
