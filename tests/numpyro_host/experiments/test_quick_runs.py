"""Runs of seconds of all experiments, but for what costs JAX a compilation and proves no more."""

import numpy as np
import pytest
from evidence import digits, hosts
from evidence.experiments import langevin_digits
from helpers.quick_runs import CHECKS

from pyro_ebm import datasets

HOST = hosts.load("numpyro")
LEFT_OUT = {
    *("constant_energy", "divergence_ends_a_run", "implicit_bases", "pair_of_flows"),
    *("gaussians_25", "generalized_digits", "bounds_digits", "langevin_digits"),
    *("stored_digits", "conditional_digits", "density", "bounds_planes", "f_divergence_digits"),
    *("mode_counting", "bit_codes", "mixed_tables"),
}


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in LEFT_OUT])
def test_quick_run(name):
    CHECKS[name](HOST)


@pytest.mark.filterwarnings("ignore:.*effective")  # Few draws are not enough.
def test_langevin_digits_with_one_prior():
    data = datasets.digits()
    train, images = (HOST.array(part.images) for part in (data.train, data.validation))
    HOST.seed(0)
    nets = digits.networks(HOST, energy=True, encoder=False)
    nets = langevin_digits.train(HOST, nets, train, 20, 5)
    guide = langevin_digits.fitted_posteriors(HOST, nets, images[:20], 20, 20)
    options = {"log_normalizers": {"z": 0.0}, "num_samples": 10}
    found = HOST.log_marginal(digits.model(HOST), guide, nets, images[:20], **options)
    assert np.mean(found.estimate) > -600  # untrained: below -1000
