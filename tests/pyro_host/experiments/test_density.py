"""The comparison on real tables, shortened; its pair of flows has a known density."""

from dataclasses import replace

import pytest
import torch
from density import OFFSET, SETTINGS
from density_pyro import Flows, flow, run
from helpers.real_data import needs_tables


@needs_tables
def test_a_short_run_learns_density_and_log_normalizer():
    changes = {"learning_rate": 2e-3, "base_learning_rate": 1e-4, "num_base_samples": 200}
    figures = run("red wine", "KALE-F", 0, num_steps=150, gradient_penalty=0.1, **changes)
    assert figures["test"] < figures["initial"] - 1.0
    assert abs(figures["estimated"] + OFFSET) < 4 * figures["standard error"] < 0.4
    # It follows estimates of 200 draws, with 5 times the standard error of 5000: within two.
    assert abs(figures["learned"] + OFFSET) < 10 * figures["standard error"]


@needs_tables
def test_a_base_that_is_fitted_first_is_that_of_likelihood(monkeypatch):
    short = replace(SETTINGS["red wine"]["ML"], num_steps=50)
    monkeypatch.setitem(SETTINGS["red wine"], "ML", short)
    likelihood = run("red wine", "ML", 0)
    changes = {"num_steps": 25, "num_base_samples": 50, "learning_rate": 1e-4, "staged": True}
    figures = run("red wine", "KALE-DV", 0, **changes)
    assert figures["initial"] == pytest.approx(likelihood["test"], abs=1e-5)
    assert abs(figures["estimated"] + OFFSET) < 4 * figures["standard error"] < 0.04


def test_a_pair_of_flows_has_the_density_of_one():
    flows, x = Flows(3), torch.randn(5, 3)
    flows.density = flow(3)
    tilted = flows.pair(log_normalizer=lambda: -OFFSET)
    torch.testing.assert_close(tilted.log_prob(x), -flows.surprise(x))
    assert (tilted.evaluate(x) - OFFSET).abs().max() > 0.1
