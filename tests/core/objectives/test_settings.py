"""Settings of all objectives: defaults, checks, equality, pickles."""

import math
import pickle

import numpy as np
import pytest

from pyro_ebm.column_perturbations import MaskOne
from pyro_ebm.core.objectives.bidirectional_bounds import BidirectionalBounds
from pyro_ebm.core.objectives.contrastive_divergence import ContrastiveDivergence
from pyro_ebm.core.objectives.divergences import alpha_divergence
from pyro_ebm.core.objectives.energy_discrepancy import EnergyDiscrepancy
from pyro_ebm.core.objectives.f_divergence import FDivergence
from pyro_ebm.core.objectives.kale import KALE
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.core.objectives.maximum_likelihood import MaximumLikelihood
from pyro_ebm.core.objectives.perturbations import GaussianPerturbation
from pyro_ebm.core.objectives.pseudo_spherical import PseudoSpherical
from pyro_ebm.core.objectives.score_matching import (
    DenoisingScoreMatching,
    ScoreMatching,
    SlicedScoreMatching,
)

# Class -> arguments, and how the object is shown.
DRAWS = "sampler=None, num_steps=None, num_samples=None"
SETTINGS = {
    EnergyDiscrepancy: (
        {"variance": 0.5},
        "variance=0.5, num_samples=16, stabilization=1.0, perturbation=None, chunk_size=None",
    ),
    ContrastiveDivergence: (
        {},
        "sampler=None, num_steps=None, init='data', num_samples=None, energy_penalty=0.0",
    ),
    ScoreMatching: ({}, ""),
    SlicedScoreMatching: ({}, "num_projections=1"),
    DenoisingScoreMatching: ({"variance": 0.1}, "variance=0.1"),
    PseudoSpherical: ({"gamma": 1}, f"gamma=1.0, {DRAWS}, energy_penalty=0.0"),
    MaximumLikelihood: ({}, "num_samples=1000"),
    KALE: (
        {},
        "form='donsker_varadhan', num_samples=1000, gradient_penalty=0.0, base_loss=None, "
        "safe_gradient=True",
    ),
    FDivergence: (
        {"f": alpha_divergence(0.5)},
        f"f=AlphaDivergence(alpha=0.5), {DRAWS}, gradient='full', energy_penalty=0.0, "
        "critic_penalty=0.0, log_ratio_bound=20.0",
    ),
    BidirectionalBounds: (
        {},
        "entropy='exact', penalty='log_ratio', penalty_weight=1.0, threshold=0.0, "
        "entropy_weight=1.0, num_samples=None, num_iterations=None, num_probes=1",
    ),
    GaussianPerturbation: ({"variance": 4}, "variance=4.0"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_are_values(kind):
    arguments, shown = SETTINGS[kind]
    settings = kind(**arguments)
    assert repr(settings) == f"{kind.__name__}({shown})"
    assert settings == kind(**arguments)
    assert hash(settings) == hash(kind(**arguments))
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_numbers_become_plain():
    """A NumPy scalar would change the type of what it is multiplied with."""
    settings = EnergyDiscrepancy(variance=np.float64(0.5), num_samples=np.int64(3))
    assert [type(settings.variance), type(settings.num_samples)] == [float, int]
    assert FDivergence("kl", log_ratio_bound=math.inf).log_ratio_bound == math.inf


def at_least(minimum, name, got):
    return f"Expected `{name}` to be an integer of at least {minimum}, got {got}"


def not_negative(name, got):
    return f"Expected `{name}` to be a number of at least 0, got {got}"


def positive(name, got):
    return f"Expected `{name}` to be a positive number, got {got}"


def one_of(name, choice, got):
    return rf"Expected `{name}` to be one of \[.*'{choice}'.*\], got '{got}'"


GAUSSIAN = GaussianPerturbation(1.0)
WRONG = [
    (EnergyDiscrepancy, {}, "one of `variance` and `perturbation`, got neither"),
    (EnergyDiscrepancy, {"variance": 1.0, "perturbation": GAUSSIAN}, "got both"),
    *[(EnergyDiscrepancy, {"variance": v}, positive("variance", v)) for v in (0.0, -1, math.nan)],
    (EnergyDiscrepancy, {"variance": 1.0, "num_samples": 2.5}, at_least(1, "num_samples", 2.5)),
    (EnergyDiscrepancy, {"variance": 1, "chunk_size": 0}, at_least(1, "chunk_size", 0)),
    (
        EnergyDiscrepancy,
        {"perturbation": MaskOne(exact=True), "chunk_size": 2},
        "no `chunk_size` with",
    ),
    (EnergyDiscrepancy, {"variance": 1, "stabilization": -1}, not_negative("stabilization", -1)),
    (GaussianPerturbation, {"variance": 0}, positive("variance", 0)),
    (ContrastiveDivergence, {"num_steps": 0}, at_least(1, "num_steps", 0)),
    (ContrastiveDivergence, {"num_samples": 1.5}, at_least(1, "num_samples", 1.5)),
    (ContrastiveDivergence, {"init": "noise"}, one_of("init", "data", "noise")),
    (ContrastiveDivergence, {"energy_penalty": -1}, not_negative("energy_penalty", -1)),
    *[(SlicedScoreMatching, {"num_projections": k}, "at least 1, got") for k in (0, 1.5)],
    *[(DenoisingScoreMatching, {"variance": v}, positive("variance", v)) for v in (0.0, None)],
    *[
        (PseudoSpherical, {"gamma": gamma}, f"`gamma` to be above -1 and not 0, got {gamma:g}")
        for gamma in (-1, -1.5, 0)
    ],
    *[
        (PseudoSpherical, {"gamma": gamma}, "Expected `gamma` to be a finite number, got")
        for gamma in (math.nan, math.inf, True, "1")
    ],
    (PseudoSpherical, {"gamma": 1, "num_steps": 0}, at_least(1, "num_steps", 0)),
    (PseudoSpherical, {"gamma": 1, "energy_penalty": -1}, not_negative("energy_penalty", -1)),
    *[(MaximumLikelihood, {"num_samples": m}, at_least(1, "num_samples", m)) for m in (0, 2.5)],
    (KALE, {"form": "dv"}, one_of("form", "donsker_varadhan", "dv")),
    (KALE, {"base_loss": "gan"}, one_of("base_loss", "full", "gan")),
    (KALE, {"num_samples": 0}, at_least(1, "num_samples", 0)),
    (KALE, {"gradient_penalty": -1.0}, not_negative("gradient_penalty", -1.0)),
    (FDivergence, {"f": "js"}, one_of("f", "jensen_shannon", "js")),
    (FDivergence, {"f": "kl", "gradient": "half"}, one_of("gradient", "covariance", "half")),
    (FDivergence, {"f": "kl", "log_ratio_bound": 0.0}, positive("log_ratio_bound", 0.0)),
    (FDivergence, {"f": "kl", "energy_penalty": -1}, not_negative("energy_penalty", -1)),
    (FDivergence, {"f": "kl", "critic_penalty": -1}, not_negative("critic_penalty", -1)),
    (FDivergence, {"f": "kl", "num_samples": 0}, at_least(1, "num_samples", 0)),
    (BidirectionalBounds, {"entropy": "full"}, one_of("entropy", "exact", "full")),
    (BidirectionalBounds, {"penalty": "none"}, one_of("penalty", "data", "none")),
    *[
        (BidirectionalBounds, {name: -1.0}, not_negative(name, -1.0))
        for name in ("penalty_weight", "threshold", "entropy_weight")
    ],
    *[
        (BidirectionalBounds, {name: 0}, at_least(1, name, 0))
        for name in ("num_samples", "num_iterations", "num_probes")
    ],
]


@pytest.mark.parametrize(("kind", "arguments", "message"), WRONG)
def test_arguments_out_of_range(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (ContrastiveDivergence, {"sampler": 0.1}, "`sampler` to have init and step"),
        (PseudoSpherical, {"gamma": 1, "sampler": 0.1}, "`sampler` to have init and step"),
        (FDivergence, {"f": "kl", "sampler": 0.1}, "`sampler` to have init and step"),
        (FDivergence, {"f": 0.5}, r"`f` to be one of \['kl', .*, got 0.5"),
    ],
)
def test_arguments_of_the_wrong_type(kind, arguments, message):
    with pytest.raises(TypeError, match=message):
        kind(**arguments)


def test_settings_alone_have_no_loss():
    with pytest.raises(NotImplementedError, match="KALE is the settings half"):
        KALE().loss(None, None)
    value, metrics = Loss(1.0, {})
    assert (value, metrics) == (1.0, {})
