import pyro
import pytest
import torch
from helpers import linear_gaussian as truth
from helpers.evidence.log_marginal import *  # noqa: F403
from helpers.evidence.log_marginal import KNOWN, SETTINGS, check, exact_log_marginal
from pyro import distributions as dist

import pyro_ebm.pyro as ebm


def test_untuned_kernels_and_batches_of_samples(host):
    toy = truth.Toy(host, precision=truth.PRECISION, slope=0.7, scale=1.1)
    sampler = ebm.MALA(0.5, target_accept_prob=None)
    settings = {**SETTINGS["annealed"], "sampler": sampler, "batch_size": 30}
    settings["num_samples"] *= 2
    check(ebm.log_marginal(toy.model, **KNOWN, **settings)(), exact_log_marginal(toy.x))
    settings = {"num_samples": 500, "batch_size": 400}
    result = ebm.log_marginal(toy.model, toy.guide, **KNOWN, **settings)()
    check(result, exact_log_marginal(toy.x))


def test_subsampling_leaves_the_numbers_as_they_are():
    x, drawn = torch.as_tensor(truth.data(), dtype=torch.float32), {}

    def model():
        with pyro.plate("data", truth.NUM_DATA, subsample_size=64) as index:
            drawn["x"] = x[index]
            prior = ebm.EnergyBased(lambda z: 3 / 32 * z**2, dist.Normal(0.0, 4.0))
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z, 1.0), obs=drawn["x"])

    result = ebm.log_marginal(model, **KNOWN, **SETTINGS["annealed"])()
    check(result, exact_log_marginal(drawn["x"]))


@pytest.mark.parametrize("method", SETTINGS)
def test_constrained_latents_without_energies(method):
    counts = torch.arange(12.0)

    def model():
        with pyro.plate("data", len(counts)):
            rate = pyro.sample("rate", dist.Gamma(2.0, 0.5))
            pyro.sample("x", dist.Poisson(rate), obs=counts)

    def guide():
        with pyro.plate("data", len(counts)):
            pyro.sample("rate", dist.Gamma(1.8 + counts, 1.4))

    result = ebm.log_marginal(model, guide, **SETTINGS[method])()
    check(result, dist.GammaPoisson(2.0, 0.5).log_prob(counts))
    assert (result.log_normalizer_error == 0).all()
