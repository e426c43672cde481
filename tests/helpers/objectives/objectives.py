"""Invariants that every objective shares."""

import inspect
import pickle

import numpy as np
import pytest

from helpers.objectives.energy_discrepancy import check_shared_noise
from helpers.objectives.score_matching import METHODS, check_by_hand

BATCH, DRAWS = np.random.default_rng(0).normal(size=(2, 3, 2)), np.zeros((5, 2))


# Name -> objective, what is attached, numbers of values in calls of the energy, metrics.
ENERGIES = {"energy_gap", "energy_scale"}
WEIGHTED = ENERGIES | {"effective_sample_size"}
OBJECTIVES = {
    "discrepancy": (
        lambda ebm: ebm.EnergyDiscrepancy(variance=0.5, num_samples=3),
        [],
        lambda host: [4 * 6],
        ENERGIES,
    ),
    "contrastive": (
        lambda ebm: ebm.ContrastiveDivergence(),
        ["chains"],
        lambda host: [6 + 5],
        ENERGIES,
    ),
    "exact": (METHODS["exact"], [], lambda host: [6], set()),
    "sliced": (lambda ebm: ebm.SlicedScoreMatching(3), [], lambda host: [6], set()),
    "denoising": (METHODS["denoising"], [], lambda host: [6], set()),
    "spherical": (
        lambda ebm: ebm.PseudoSpherical(0.5),
        ["chains"],
        lambda host: [6 + 5],
        ENERGIES | {"effective_values", "effective_negatives"},
    ),
    "likelihood": (
        lambda ebm: ebm.MaximumLikelihood(num_samples=7),
        [],
        lambda host: [6 + 7],
        WEIGHTED,
    ),
    "noise": (
        lambda ebm: ebm.NoiseContrastive(num_samples=7),
        [],
        lambda host: [6 + 7],
        ENERGIES | {"accuracy"},
    ),
    "kale": (lambda ebm: ebm.KALE(num_samples=7), [], lambda host: [6 + 7], WEIGHTED),
    "f": (
        lambda ebm: ebm.FDivergence("kl"),
        ["critic", "chains"],
        lambda host: [6 + 5],
        ENERGIES | {"log_ratio_of_data", "log_ratio_of_negatives", "mean_ratio", "clipped"},
    ),
    "bounds": (
        lambda ebm: ebm.BidirectionalBounds(num_samples=5),
        ["generator"],
        lambda host: [5, 6],
        WEIGHTED | {"lower_bound", "penalty"},
    ),
}
# Names that a guide may attach, and whether it must.
ATTACHED = {
    "contrastive": {"chains": False},
    "spherical": {"chains": False},
    "noise": {"log_normalizer": False},
    "kale": {"log_normalizer": False},
    "f": {"critic": True, "chains": False},
    "bounds": {"generator": True, "encoder": False},
}

every_objective = pytest.mark.parametrize("name", OBJECTIVES)


def parts(host, name, draws):
    """What is attached, at a site of the event shape of draws."""
    shape = draws.shape[1:]
    latent = host.dist.Normal(host.array(np.zeros(shape)), 1.0).to_event(len(shape))
    available = {
        "chains": host.array(draws),
        "critic": lambda x: 0.1 * x.reshape(len(x), -1).sum(-1),
        "generator": host.ebm.Pushforward(latent, host.xp.sinh),
    }
    return {key: available[key] for key in OBJECTIVES[name][1]}


def step(host, name):
    """One step, and the shapes that the energy was called with."""
    seen = []

    def prior(p):
        def energy(x):
            seen.append(tuple(x.shape))
            return p["weight"] * (x**4).sum(-1) / 4

        base = host.dist.Normal(host.array(np.zeros(2)), 1.5).to_event(1)
        return host.ebm.EnergyBased(energy, base).expand((2, 3))

    objective, given = OBJECTIVES[name][0](host.ebm), parts(host, name, DRAWS)
    found = host.step(objective, prior, {"weight": 0.7}, BATCH, lambda p: given)
    return found, seen


@every_objective
def test_loss_of_each_value(host, name, float64):
    """One call of the energy for all that is compared; no gradient in the values."""
    found, seen = step(host, name)
    _, _, num_rows, metrics = OBJECTIVES[name]
    assert found.loss.shape == (2, 3)
    assert np.all(np.isfinite(found.loss))
    assert abs(found.gradients["weight"]) > 1e-6
    assert np.all(found.by_value == 0)
    assert seen == [(number, 2) for number in num_rows(host)]
    assert set(found.metrics) == metrics
    assert all(np.isfinite(list(found.metrics.values())))


def of_counted_values(host, name):
    """Objective, and what is attached; that from data has a draw for each value."""
    if name == "from data":
        barely = {"sampler": host.ebm.MALA(1e-9), "num_steps": 1}
        return host.ebm.ContrastiveDivergence(init="data", **barely), {}
    return OBJECTIVES[name][0](host.ebm), parts(host, name, np.ones((5, 2)))


@pytest.mark.once
@pytest.mark.parametrize(
    "name", ["contrastive", "spherical", "likelihood", "noise", "f", "from data"]
)
def test_metrics_of_the_values_that_count(host, name):
    objective, attached = of_counted_values(host, name)
    base = host.dist.Normal(host.array(np.zeros(2)), 1.0).to_event(1)
    prior = host.ebm.EnergyBased(lambda x: (x**2).sum(-1) - 3, base)
    ratios = {"log_ratio_of_data", "log_ratio_of_negatives", "mean_ratio", "clipped"}

    def read(x, counts=None):
        found = host.loss_of(objective, prior, x, **attached).read(counts)
        names = found.keys() & {"energy_gap", "energy_scale", "accuracy", *ratios}
        return {metric: float(found[metric]) for metric in names}

    x = np.array([[1.0, 0.0], [2.0, 1.0], [9.0, 9.0]])
    found = read(x, host.array([1.0, 1.0, 0.0]))
    assert found == pytest.approx(read(x[:2]), rel=1e-5, abs=1e-3)
    twice = read(x, host.array([1.0, 2.0, 0.0]))["energy_gap"]
    assert twice == pytest.approx(read(x[[0, 1, 1]])["energy_gap"], rel=1e-5, abs=1e-3)


@every_objective
def test_single_precision_stays_single(host, name):
    found, _ = step(host, name)
    assert found.loss.dtype == np.float32
    assert found.gradients["weight"].dtype == np.float32


def test_energy_discrepancy_by_hand_in_single_precision(host):
    assert check_shared_noise(host, 1e-6).loss.dtype == np.float32


@pytest.mark.parametrize("method", METHODS)
def test_score_matching_by_hand_in_single_precision(host, method):
    assert check_by_hand(host, method, (1, 2, 2), 5e-5).loss.dtype == np.float32


@every_objective
def test_objectives_are_values(host, name):
    """They can be compared and pickled, and show all settings."""
    make = OBJECTIVES[name][0]
    objective = make(host.ebm)
    assert pickle.loads(pickle.dumps(objective)) == objective == make(host.ebm)
    assert hash(objective) == hash(make(host.ebm))
    assert repr(objective).startswith(type(objective).__name__ + "(")


@every_objective
def test_parts_that_can_be_attached(host, name):
    parameters = inspect.signature(OBJECTIVES[name][0](host.ebm).loss).parameters.values()
    found = {p.name: p.default is p.empty for p in parameters if p.kind is p.KEYWORD_ONLY}
    # The site gives these.
    found.pop("weights", None)
    assert found == ATTACHED.get(name, {})


@pytest.mark.parametrize("name", ["discrepancy", "exact"])
def test_discrete_supports_are_refused(host, name):
    prior = host.ebm.EnergyBased(lambda x: x, host.dist.Poisson(host.array(3.0)))
    with pytest.raises(ValueError, match="Expected a continuous support"):
        host.loss(OBJECTIVES[name][0](host.ebm), prior, np.ones(2))
