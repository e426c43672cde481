"""Markov kernels, vectorised over chains: ``state = init(...)``, ``state, info = step(...)``.

A sampler walks on a potential over unconstrained space (minus a log-density, up to a constant)
and knows of no distribution. One file a sampler. Everything it returns is detached.
"""

from pyro_ebm.pyro.samplers.base import ChainState, Sampler, Transition, TransitionInfo
from pyro_ebm.pyro.samplers.hmc import HMC
from pyro_ebm.pyro.samplers.kinetic_langevin import KineticLangevin
from pyro_ebm.pyro.samplers.langevin import Langevin
from pyro_ebm.pyro.samplers.mala import MALA

__all__ = [
    "ChainState",
    "HMC",
    "KineticLangevin",
    "Langevin",
    "MALA",
    "Sampler",
    "Transition",
    "TransitionInfo",
]
