"""Energy-based models for Pyro: ``import pyro_ebm.pyro as ebm``."""

from pyro_ebm._extras import require_extra

with require_extra("pyro"):
    import pyro as _pyro  # noqa: F401
    import torch as _torch  # noqa: F401

from pyro_ebm.core.bounds import Bounds
from pyro_ebm.core.divergences import Divergence, alpha_divergence
from pyro_ebm.core.evidence import LogNormalizer
from pyro_ebm.core.findings import Finding
from pyro_ebm.core.marginal import LogMarginal
from pyro_ebm.pyro.bounds import bounds
from pyro_ebm.pyro.chains import PersistentChains
from pyro_ebm.pyro.checks import check_model
from pyro_ebm.pyro.distributions import EnergyBased
from pyro_ebm.pyro.elbo import EnergyELBO, auxiliary
from pyro_ebm.pyro.evidence import log_normalizer
from pyro_ebm.pyro.guides import LangevinGuide
from pyro_ebm.pyro.jacobian import log_det_jtj
from pyro_ebm.pyro.marginal import log_marginal
from pyro_ebm.pyro.mcmc import SamplerKernel
from pyro_ebm.pyro.objectives.bidirectional_bounds import BidirectionalBounds
from pyro_ebm.pyro.objectives.contrastive_divergence import ContrastiveDivergence
from pyro_ebm.pyro.objectives.energy_discrepancy import EnergyDiscrepancy
from pyro_ebm.pyro.objectives.f_divergence import FDivergence
from pyro_ebm.pyro.objectives.kale import KALE
from pyro_ebm.pyro.objectives.maximum_likelihood import MaximumLikelihood
from pyro_ebm.pyro.objectives.pseudo_spherical import PseudoSpherical
from pyro_ebm.pyro.objectives.score_matching import ScoreMatching
from pyro_ebm.pyro.optimizers import step_when
from pyro_ebm.pyro.perturbations import GaussianPerturbation
from pyro_ebm.pyro.pushforward import Pushforward
from pyro_ebm.pyro.samplers import HMC, MALA, KineticLangevin, Langevin
from pyro_ebm.pyro.sampling import run_chains

__all__ = [
    "BidirectionalBounds",
    "Bounds",
    "ContrastiveDivergence",
    "Divergence",
    "EnergyBased",
    "EnergyDiscrepancy",
    "EnergyELBO",
    "FDivergence",
    "Finding",
    "GaussianPerturbation",
    "HMC",
    "KALE",
    "KineticLangevin",
    "Langevin",
    "LangevinGuide",
    "LogMarginal",
    "LogNormalizer",
    "MALA",
    "MaximumLikelihood",
    "PersistentChains",
    "PseudoSpherical",
    "Pushforward",
    "SamplerKernel",
    "ScoreMatching",
    "alpha_divergence",
    "auxiliary",
    "bounds",
    "check_model",
    "log_det_jtj",
    "log_marginal",
    "log_normalizer",
    "run_chains",
    "step_when",
]
