"""Energy-based models for NumPyro: ``import pyro_ebm.numpyro as ebm``."""

from pyro_ebm._extras import require_extra

with require_extra("numpyro"):
    import jax as _jax  # noqa: F401
    import numpyro as _numpyro  # noqa: F401

from pyro_ebm.core.bounds import Bounds
from pyro_ebm.core.divergences import Divergence, alpha_divergence
from pyro_ebm.core.evidence import LogNormalizer
from pyro_ebm.core.findings import Finding
from pyro_ebm.core.marginal import LogMarginal
from pyro_ebm.numpyro.bounds import bounds
from pyro_ebm.numpyro.chains import PersistentChains
from pyro_ebm.numpyro.checks import check_model
from pyro_ebm.numpyro.distributions import EnergyBased
from pyro_ebm.numpyro.elbo import EnergyELBO, auxiliary
from pyro_ebm.numpyro.evidence import log_normalizer
from pyro_ebm.numpyro.guides import LangevinGuide
from pyro_ebm.numpyro.jacobian import log_det_jtj
from pyro_ebm.numpyro.marginal import log_marginal
from pyro_ebm.numpyro.mcmc import SamplerKernel
from pyro_ebm.numpyro.objectives.bidirectional_bounds import BidirectionalBounds
from pyro_ebm.numpyro.objectives.contrastive_divergence import ContrastiveDivergence
from pyro_ebm.numpyro.objectives.energy_discrepancy import EnergyDiscrepancy
from pyro_ebm.numpyro.objectives.f_divergence import FDivergence
from pyro_ebm.numpyro.objectives.kale import KALE
from pyro_ebm.numpyro.objectives.maximum_likelihood import MaximumLikelihood
from pyro_ebm.numpyro.objectives.pseudo_spherical import PseudoSpherical
from pyro_ebm.numpyro.objectives.score_matching import ScoreMatching
from pyro_ebm.numpyro.optimizers import step_when
from pyro_ebm.numpyro.perturbations import GaussianPerturbation
from pyro_ebm.numpyro.pushforward import Pushforward
from pyro_ebm.numpyro.samplers import HMC, MALA, KineticLangevin, Langevin
from pyro_ebm.numpyro.sampling import run_chains

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
