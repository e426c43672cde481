"""Runs of seconds of all experiments, but for what costs JAX a compilation and proves no more."""

import pytest
from evidence import hosts
from helpers.quick_runs import CHECKS

HOST = hosts.load("numpyro")
LEFT_OUT = {
    *("constant_energy", "divergence_ends_a_run", "implicit_bases", "pair_of_flows"),
    *("gaussians_25", "generalized_digits", "bounds_digits", "langevin_digits"),
    *("stored_digits", "conditional_digits", "density", "bounds_planes", "f_divergence_digits"),
    *("mode_counting", "bit_codes", "mixed_tables", "ising", "f_divergence_toy", "tilts"),
    *("digits_priors", "anomalies", "simulators"),
}


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in LEFT_OUT])
def test_quick_run(name):
    CHECKS[name](HOST)
