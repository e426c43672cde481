"""Training between bounds in the plane, shortened."""

from dataclasses import replace

import bounds_planes as settings
import bounds_planes_numpyro as runs
import pytest
from flowjax.distributions import StandardNormal
from flowjax.flows import coupling_flow
from jax import random


@pytest.fixture
def short(monkeypatch):
    """Two looks at a flow that is quick to compile."""
    monkeypatch.setattr(settings, "NUM_LOOKS", 1)
    monkeypatch.setattr(settings, "NUM_DRAWS", 2000)
    flow = coupling_flow(
        random.key(0), base_dist=StandardNormal((2,)), flow_layers=6, nn_width=64, invert=False
    )
    monkeypatch.setattr(runs, "untrained_flow", lambda: flow)


@pytest.mark.usefixtures("short")
def test_a_short_run_comes_closer_to_the_data():
    setting = replace(settings.SETTINGS["bounds"], penalty_weight=0.1, learning_rate=1e-3)
    start, end = runs.train("25_gaussians", setting, 100, 150)
    assert end["log-likelihood"] > start["log-likelihood"] + 0.05
    # The flow is injective, and onto the plane.
    for look in (start, end):
        assert look["lower"] < look["log_z"] + 4 * look["error, lower"]
    assert abs(end["estimate"] - end["log_z"]) < 4 * end["error, estimate"]


@pytest.mark.usefixtures("short")
def test_a_run_that_diverges_is_ended():
    setting = replace(settings.SETTINGS["no penalty"], learning_rate=30.0)
    assert len(runs.train("25_gaussians", setting, 0, 20)) == 1
