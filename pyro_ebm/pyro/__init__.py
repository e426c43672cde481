"""Energy-based models for Pyro: ``import pyro_ebm.pyro as ebm``."""

from pyro_ebm._extras import require_extra

with require_extra("pyro"):
    import pyro as _pyro  # noqa: F401
    import torch as _torch  # noqa: F401

from pyro_ebm.column_perturbations import (
    Cyclic,
    Masking,
    MaskOne,
    Ordinal,
    Product,
    Uniform,
)
from pyro_ebm.core.columns import Column
from pyro_ebm.core.evidence.code_probabilities import code_probabilities
from pyro_ebm.core.evidence.log_density import log_density
from pyro_ebm.core.objectives.divergences import alpha_divergence
from pyro_ebm.pyro.distributions.column_marginals import ColumnMarginals
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.distributions.joint import Joint
from pyro_ebm.pyro.distributions.pushforward import Pushforward
from pyro_ebm.pyro.distributions.run_smc import run_smc
from pyro_ebm.pyro.evidence.bounds import generator_bounds
from pyro_ebm.pyro.evidence.calibration import simulation_based_calibration
from pyro_ebm.pyro.evidence.conditional import check_conditional
from pyro_ebm.pyro.evidence.log_marginal import log_marginal
from pyro_ebm.pyro.evidence.log_normalizer import log_normalizer
from pyro_ebm.pyro.infer.check_modes import check_modes
from pyro_ebm.pyro.infer.checkpoints import load_checkpoint, save_checkpoint
from pyro_ebm.pyro.infer.elbo import EnergyELBO, attach
from pyro_ebm.pyro.infer.langevin_guide import LangevinGuide
from pyro_ebm.pyro.infer.log_likelihood import to_arviz
from pyro_ebm.pyro.infer.mcmc import SamplerKernel
from pyro_ebm.pyro.infer.metrics_recorder import MetricsRecorder
from pyro_ebm.pyro.infer.persistent_chains import PersistentChains
from pyro_ebm.pyro.model.check import check_model
from pyro_ebm.pyro.model.site_distribution import site_distribution
from pyro_ebm.pyro.objectives.bidirectional_bounds import BidirectionalBounds
from pyro_ebm.pyro.objectives.contrastive_divergence import ContrastiveDivergence
from pyro_ebm.pyro.objectives.energy_discrepancy import EnergyDiscrepancy
from pyro_ebm.pyro.objectives.f_divergence import FDivergence
from pyro_ebm.pyro.objectives.jacobian import log_det_jtj
from pyro_ebm.pyro.objectives.kale import KALE
from pyro_ebm.pyro.objectives.maximum_likelihood import MaximumLikelihood
from pyro_ebm.pyro.objectives.noise_contrastive import NoiseContrastive
from pyro_ebm.pyro.objectives.perturbations import GaussianPerturbation
from pyro_ebm.pyro.objectives.pseudo_spherical import PseudoSpherical
from pyro_ebm.pyro.objectives.score_matching import (
    DenoisingScoreMatching,
    ScoreMatching,
    SlicedScoreMatching,
)
from pyro_ebm.pyro.optim import AllReduce, step_when
from pyro_ebm.pyro.samplers.gibbs import Gibbs
from pyro_ebm.pyro.samplers.gibbs_with_gradients import GibbsWithGradients
from pyro_ebm.pyro.samplers.grid import Grid
from pyro_ebm.pyro.samplers.hmc import HMC
from pyro_ebm.pyro.samplers.kinetic_langevin import KineticLangevin
from pyro_ebm.pyro.samplers.langevin import Langevin
from pyro_ebm.pyro.samplers.mala import MALA
from pyro_ebm.pyro.samplers.replica_exchange import ReplicaExchange
from pyro_ebm.pyro.samplers.run import run_chains
from pyro_ebm.pyro.samplers.smc import SMC

__all__ = [
    "AllReduce",
    "BidirectionalBounds",
    "Column",
    "ColumnMarginals",
    "ContrastiveDivergence",
    "Cyclic",
    "DenoisingScoreMatching",
    "EnergyBased",
    "EnergyDiscrepancy",
    "EnergyELBO",
    "FDivergence",
    "GaussianPerturbation",
    "Gibbs",
    "GibbsWithGradients",
    "Grid",
    "HMC",
    "Joint",
    "KALE",
    "KineticLangevin",
    "Langevin",
    "LangevinGuide",
    "MALA",
    "MaskOne",
    "Masking",
    "MaximumLikelihood",
    "MetricsRecorder",
    "NoiseContrastive",
    "Ordinal",
    "PersistentChains",
    "Product",
    "PseudoSpherical",
    "Pushforward",
    "ReplicaExchange",
    "SMC",
    "SamplerKernel",
    "ScoreMatching",
    "SlicedScoreMatching",
    "Uniform",
    "alpha_divergence",
    "attach",
    "check_conditional",
    "check_model",
    "check_modes",
    "code_probabilities",
    "generator_bounds",
    "load_checkpoint",
    "log_density",
    "log_det_jtj",
    "log_marginal",
    "log_normalizer",
    "run_chains",
    "run_smc",
    "save_checkpoint",
    "simulation_based_calibration",
    "site_distribution",
    "step_when",
    "to_arviz",
]
