"""Sentences of the README, and the tests that hold them."""

import re
from pathlib import Path

import pytest
from helpers.readme import TEXT

ROOT = Path(__file__).parents[2]
SENTENCES = " ".join(TEXT.split())
HELD_BY = {
    "a stock ELBO drives the energy to minus infinity without a warning": (
        "pyro_host/test_readme.py::test_the_energy_runs_away_under_a_plain_log_density"
    ),
    "turns an energy into a distribution for any `sample` site": (
        "helpers/infer/elbo.py::test_every_layout_recovers_the_prior"
    ),
    "`NUTS` and `Predictive` sample it": "helpers/infer/stock_tools.py::test_predictive",
    "ArviZ reads the results": "helpers/infer/mcmc.py::test_summary_and_arviz",
    "`log_prob` leaves out log Z and has no gradient in the energy's parameters": (
        "helpers/distributions/energy_based.py::test_gradients_of_log_prob_and_potential"
    ),
    "Values can be vectors, images, bits, categories or rows of a table": (
        "helpers/objectives/column_perturbations.py::test_mixed_event"
    ),
    "Energies can depend on covariates": "helpers/claims/learned_noise.py::CLAIMS",
    "Estimates of log Z have bounds": (
        "helpers/evidence/log_normalizer.py::test_brackets_contain_the_truth"
    ),
    "no MCMC, no gradients in `x`": "helpers/objectives/objectives.py::test_loss_of_each_value",
    "works for categories and tables too": (
        "helpers/objectives/column_perturbations.py::test_training_finds_the_law"
    ),
    "it also learns log Z": "helpers/objectives/noise_contrastive.py::test_minimum",
    "the base is trained too": "helpers/objectives/kale.py::test_implicit_base_moves_onto_the_data",
    "you want bounds on log Z during training": (
        "helpers/evidence/bounds.py::test_bounds_by_quadrature"
    ),
    "the model should cover modes, or seek them": "helpers/claims/divergences.py::CLAIMS",
    "the density is smooth and its modes are close": "helpers/claims/which_objective.py::CLAIMS",
    "An energy must not depend on *another latent variable*: log Z would too": (
        "helpers/infer/check.py::test_dependence_on_another_latent"
    ),
    "contains a rough estimate of log Z": (
        "helpers/infer/elbo.py::test_the_log_normalizer_has_no_gradient"
    ),
    "`run_chains(..., check=data)` looks for such modes": (
        "helpers/samplers/smc.py::test_a_mode_that_chains_miss"
    ),
    "where each is caught": "helpers/pages.py::run",
}


@pytest.mark.parametrize("sentence", HELD_BY)
def test_sentences_are_held_by_a_test(sentence):
    file, name = HELD_BY[sentence].split("::")
    assert sentence in SENTENCES
    assert re.search(rf"^(def )?{name}", (ROOT / "tests" / file).read_text(), flags=re.MULTILINE)


def test_numbers_are_those_of_the_results():
    results = (ROOT / "tests/evidence/RESULTS.md").read_text()
    table = results.split("`digits_priors`")[1]
    gains = re.search(r"\| energy discrepancy \| ([\d.]+) \(.*?\) \| ([\d.]+) ", table)
    assert gains is not None
    pyro, numpyro = (f"{float(gain):.1f}" for gain in gains.groups())
    assert f"gains {pyro} nats an image (Pyro; NumPyro {numpyro})" in SENTENCES
