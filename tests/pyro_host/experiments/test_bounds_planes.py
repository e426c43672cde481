"""Training between bounds in the plane, shortened."""

from dataclasses import replace

import bounds_planes as settings
import pytest
from bounds_planes_pyro import train


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Two looks."""
    monkeypatch.setattr(settings, "NUM_LOOKS", 1)
    monkeypatch.setattr(settings, "NUM_DRAWS", 2000)


def test_a_short_run_comes_closer_to_the_data():
    setting = replace(settings.SETTINGS["bounds"], penalty_weight=0.01, learning_rate=3e-3)
    start, end = train("25_gaussians", setting, 100, 100)
    assert end["log-likelihood"] > start["log-likelihood"] + 0.05
    # The flow is injective, and onto the plane.
    for look in (start, end):
        assert look["lower"] < look["log_z"] + 4 * look["error, lower"]
    assert abs(end["estimate"] - end["log_z"]) < 4 * end["error, estimate"]


def test_a_run_that_diverges_is_ended():
    setting = replace(settings.SETTINGS["no penalty"], learning_rate=30.0)
    assert len(train("25_gaussians", setting, 0, 20)) == 1
