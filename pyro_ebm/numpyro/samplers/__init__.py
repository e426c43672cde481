"""Markov kernels, vectorised over chains: ``state = init(...)``, ``state, info = step(...)``.

A sampler walks on a potential over unconstrained space (minus a log-density, up to a constant)
and knows of no distribution. One file a sampler.
"""

from pyro_ebm.numpyro.samplers.base import ChainState, Sampler, Transition, TransitionInfo
from pyro_ebm.numpyro.samplers.hmc import HMC
from pyro_ebm.numpyro.samplers.kinetic_langevin import KineticLangevin
from pyro_ebm.numpyro.samplers.langevin import Langevin
from pyro_ebm.numpyro.samplers.mala import MALA

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
