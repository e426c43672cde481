"""Runs of seconds of all experiments, but for what costs JAX a compilation and proves no more."""

import pytest
from evidence import hosts
from helpers.quick_runs import CHECKS, WITH_TABLES
from helpers.real_data import needs_tables

HOST = hosts.load("numpyro")
LEFT_OUT = {"constant_energy", "divergence_ends_a_run", "implicit_bases", "pair_of_flows"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=needs_tables if name in WITH_TABLES else ())
        for name in CHECKS
        if name not in LEFT_OUT
    ],
)
def test_quick_run(name):
    CHECKS[name](HOST)
