"""Generalized energy-based models in the plane, shortened."""

from dataclasses import replace

import pytest
from generalized import CIRCLES, TILTS
from generalized_numpyro import run_circle, run_tilt


@pytest.mark.usefixtures("optimized")
def test_disjoint_supports_come_together():
    """By KALE, which is finite; the base moves when it may."""
    setting = replace(CIRCLES["end"], num_steps=150, base_starts=50, base_stops=150)
    figures = run_circle(0, {"end": setting})
    # Twenty steps of Adam, each of 0.03 at most.
    assert 2.4 < figures["distance, end"] < 2.9
    assert 0 < figures["kale, end"] < float("inf")


@pytest.mark.usefixtures("optimized")
def test_an_energy_corrects_a_base_that_is_hardly_trained():
    setting = replace(TILTS["early"], num_steps=400, base_stops=150, gradient_penalty=1.0)
    figures = run_tilt("8_gaussians", 2, setting, 0)
    for gain in ("chains", "resampled", "likelihood"):
        assert figures[f"gain, {gain}"] > 4 * figures[f"error, {gain}"]
