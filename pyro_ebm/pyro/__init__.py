"""Energy-based models for Pyro: ``import pyro_ebm.pyro as ebm``."""

from pyro_ebm._extras import require_extra

with require_extra("pyro"):
    import pyro as _pyro  # noqa: F401
    import torch as _torch  # noqa: F401

from pyro_ebm.core.evidence import LogNormalizer
from pyro_ebm.pyro.chains import PersistentChains
from pyro_ebm.pyro.distributions import EnergyBased
from pyro_ebm.pyro.elbo import EnergyELBO, auxiliary
from pyro_ebm.pyro.evidence import log_normalizer
from pyro_ebm.pyro.objectives.energy_discrepancy import EnergyDiscrepancy
from pyro_ebm.pyro.perturbations import GaussianPerturbation
from pyro_ebm.pyro.samplers import MALA, Langevin, run_chains

__all__ = [
    "EnergyBased",
    "EnergyDiscrepancy",
    "EnergyELBO",
    "GaussianPerturbation",
    "Langevin",
    "LogNormalizer",
    "MALA",
    "PersistentChains",
    "auxiliary",
    "log_normalizer",
    "run_chains",
]
