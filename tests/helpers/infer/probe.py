"""Energies whose rows are not independent, or not functions: refused, and named."""

import re

import numpy as np
import pytest

X = np.random.default_rng(0).normal(size=(20, 2))


def centered(x):
    return ((x - x.mean(0)) ** 2).sum(-1)


def shared(x):
    return (x**2).sum(-1) / len(x)


def by_place(host):
    rate = host.array(np.linspace(1.0, 2.0, 20))
    return lambda x: rate * (x**2).sum(-1)


def energies(host):
    return {"mean over rows": centered, "number of rows": shared, "rate by row": by_place(host)}


MESSAGES = {
    "mean over rows": "energy of {} to give a row the same number again, alone and among others",
    "number of rows": "energy of {} to give a row the same number again",
    "rate by row": r"energy of {} to take any number of rows, got .* from 1?[01246] .*`context`",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_training_refuses(host, name):
    model = host.observed_model(energies(host)[name], lambda energy: host.prior(energy))
    loss = host.ebm.EnergyELBO(host.ebm.EnergyDiscrepancy(variance=1.0))
    training = host.Training(model, host.empty_guide, loss)
    with pytest.raises(ValueError, match=MESSAGES[name].format("site 'x'")):
        training.first_step(X)


@pytest.mark.parametrize("name", MESSAGES)
def test_chains_refuse(host, name):
    prior = host.prior(energies(host)[name])
    with pytest.raises(ValueError, match=MESSAGES[name].format(r"EnergyBased\(.*")):
        prior._check_rows(host.array(X))


def test_sound_energies_pass(host):
    offset = lambda x: (1e4 + (x**2).sum(-1)) - 1e4  # noqa: E731
    for energy in (host.Bowl(), lambda x: 0 * x[:, 0], offset, lambda x: 1e6 + (x**12).sum(-1)):
        for num_rows in (1, 2, 3, 20):
            host.prior(energy)._check_rows(host.array(X[:num_rows]))


@pytest.mark.parametrize("is_observed", [True, False])
@pytest.mark.parametrize("name", MESSAGES)
def test_check_model_finds_them(host, name, is_observed):
    x = host.array(X)

    def model():
        scale = host.ppl.sample("scale", host.dist.LogNormal(0.0, 1.0))
        with host.ppl.plate("data", 20):
            prior = host.prior(energies(host)[name])
            value = host.ppl.sample("x", prior, obs=x if is_observed else None)
            host.ppl.sample("y", host.dist.Normal(value, scale).to_event(1), obs=x)

    (issue,) = host.ebm.check_model(model)()
    assert (issue.site, issue.kind, issue.biases_mcmc) == ("x", "rows", True)
    assert re.search(MESSAGES[name].format("site 'x'"), issue.message)
