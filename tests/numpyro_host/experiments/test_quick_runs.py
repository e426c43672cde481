"""Runs of seconds of all experiments."""

import pytest
from evidence import hosts
from evidence.checks import CHECKS, WITH_TABLES
from helpers.real_data import needs_tables

HOST = hosts.load("numpyro")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=needs_tables if name in WITH_TABLES else ()) for name in CHECKS],
)
def test_quick_run(name):
    CHECKS[name](HOST)
