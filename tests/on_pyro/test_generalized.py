"""Generalized energy-based models in the plane, shortened."""

from dataclasses import replace

import pytest
from generalized import CIRCLES, TILTS
from generalized_pyro import run_circle, run_tilt


def test_disjoint_supports_come_together():
    """The base moves towards the data, and no earlier than it may."""
    short = {"num_steps": 150, "base_starts": 50}
    settings = {
        "start": replace(CIRCLES["end"], **short, base_stops=50),
        "end": replace(CIRCLES["end"], **short, base_stops=150),
    }
    figures = run_circle(0, settings)
    assert figures["distance, start"] == pytest.approx(3.0)
    assert figures["distance, end"] < 2.95  # twenty steps of Adam, the longest of 0.02
    assert 0 < figures["kale, end"] < figures["kale, start"] < float("inf")


def test_an_energy_corrects_a_base_that_is_hardly_trained():
    setting = replace(TILTS["early"], num_steps=400, base_stops=150, gradient_penalty=1.0)
    figures = run_tilt("8_gaussians", 2, setting, 0)
    for kind in ("chains", "resampled"):
        assert figures[f"gain, {kind}"] > 4 * figures[f"error, {kind}"]
