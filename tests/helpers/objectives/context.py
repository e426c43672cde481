"""Conditional energies: x | c ~ N(w c, exp(a + b c)), a law and a log-normalizer for each row."""

import numpy as np
import pytest

from pyro_ebm.core.objectives.negatives import evaluate_energies

TRUTH = {"w": 0.7, "a": -1.0, "b": 0.5}
BASE_SCALE = 2.0
rng = np.random.default_rng(0)
CONTEXT = np.linspace(-1.5, 1.5, 1000)
MEAN, VARIANCE = TRUTH["w"] * CONTEXT, np.exp(TRUTH["a"] + TRUTH["b"] * CONTEXT)
VALUES = rng.normal(MEAN, np.sqrt(VARIANCE))


def standard_errors(rows):
    """Errors of maximum likelihood, from the Fisher information; contexts have mean zero."""
    context, variance = CONTEXT[rows], VARIANCE[rows]
    return {
        "w": (context**2 / variance).sum() ** -0.5,
        "a": (len(context) / 2) ** -0.5,
        "b": ((context**2).sum() / 2) ** -0.5,
    }


def assert_truth(path, rows=slice(None)):
    for name, error in standard_errors(rows).items():
        assert path[name][-50:].mean() == pytest.approx(TRUTH[name], abs=3 * error)


def energy_of(host, params):
    """Minus log-density, without normalizer, and without the base's part."""

    def energy(x, c):
        squares = (x - params["w"] * c) ** 2 * host.xp.exp(-params["a"] - params["b"] * c)
        return squares / 2 - x**2 / (2 * BASE_SCALE**2)

    return energy


def prior_of(host, context=CONTEXT):
    base = host.dist.Normal(0.0, BASE_SCALE)

    def prior(params):
        energy = energy_of(host, params)
        return host.ebm.EnergyBased(energy, base, context=host.array(context))

    return prior


def objectives(host):
    ebm = host.ebm
    data = {"sampler": ebm.MALA(0.3), "num_steps": 10, "init": "data"}
    return {
        "energy discrepancy": ebm.EnergyDiscrepancy(variance=1.0, num_samples=32),
        "contrastive divergence": ebm.ContrastiveDivergence(**data),
        "score matching": ebm.ScoreMatching(),
        "sliced score matching": ebm.SlicedScoreMatching(),
        "denoising score matching": ebm.DenoisingScoreMatching(0.01),
        "maximum likelihood": ebm.MaximumLikelihood(num_samples=100),
        "KALE": ebm.KALE(num_samples=100),
    }


NAMES = [
    "energy discrepancy",
    "contrastive divergence",
    "score matching",
    "sliced score matching",
    "denoising score matching",
    "maximum likelihood",
    "KALE",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_finds_the_conditional_law(host, name):
    options = {"num_steps": 150, "learning_rate": 0.05}
    # Fewer rows where each has many draws.
    rows = slice(None, None, 1 if "score" in name else 4)
    prior, start = prior_of(host, CONTEXT[rows]), dict.fromkeys(TRUTH, 0.0)
    path = host.train(objectives(host)[name], prior, start, VALUES[rows], **options)
    assert_truth(path, rows)


def test_critics_see_the_context_too(host):
    rows = slice(None, None, 20)

    def attached(params):
        energy = energy_of(host, {name: params[f"critic_{name}"] for name in TRUTH})
        k = params["k"]
        return {"critic": lambda x, c: k[0] + k[1] * c + k[2] * c**2 - energy(x, c)}

    draws = {"sampler": host.ebm.MALA(0.1), "num_steps": 40, "num_samples": 8}
    objective = host.ebm.FDivergence("kl", gradient="covariance", **draws)
    near = {"w": 0.4, "a": -0.7, "b": 0.2}
    start = {**near, "k": np.zeros(3), **{f"critic_{name}": near[name] for name in near}}
    options = {"num_steps": 120, "learning_rate": 0.01, "betas": (0.5, 0.999)}
    prior = prior_of(host, CONTEXT[rows])
    assert_truth(host.train(objective, prior, start, VALUES[rows], attached, **options), rows)


def test_negatives_have_the_context_of_their_row(host):
    truth = {name: host.array(value) for name, value in TRUTH.items()}
    context, x, negatives = rng.normal(size=5), rng.normal(size=5), rng.normal(size=(3, 5))
    prior = prior_of(host, context)(truth)
    energies = evaluate_energies(prior, host.array(x), host.array(negatives))
    variance = np.exp(TRUTH["a"] + TRUTH["b"] * context)
    for values, found in [(x, energies.positive_energy), (negatives, energies.negative_energy)]:
        exact = (values - TRUTH["w"] * context) ** 2 / (2 * variance)
        exact -= values**2 / (2 * BASE_SCALE**2)
        np.testing.assert_allclose(host.to_numpy(found), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["spherical", "bounds", "contrastive", "f-divergence"])
def test_objectives_and_attached_chains_of_one_law_refuse_a_context(host, name):
    truth = {name: host.array(value) for name, value in TRUTH.items()}
    prior, x = prior_of(host, CONTEXT[:5])(truth), VALUES[:5]
    objective, attached = {
        "spherical": (host.ebm.PseudoSpherical(0.5), {}),
        "bounds": (host.ebm.BidirectionalBounds(), {"generator": None}),
        "contrastive": (host.ebm.ContrastiveDivergence(), {"chains": host.array(x)}),
        "f-divergence": (host.ebm.FDivergence("kl"), {"chains": host.array(x), "critic": None}),
    }[name]
    remedy = ": leave out `chains`, take" if "chains" in attached else r"\."
    with pytest.raises(ValueError, match="one distribution for all batch.*got a context" + remedy):
        host.loss(objective, prior, x, **attached)
