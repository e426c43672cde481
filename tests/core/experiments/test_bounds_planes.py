"""The comparison of bounds in the plane: what it measures with."""

import bounds_planes
import numpy as np
import pytest
from bounds_planes import bounds, log_density, mode_figures
from gaussians_25 import normalize

from pyro_ebm.datasets import toy


def test_draws_of_the_truth_find_every_mode():
    draws = toy("25_gaussians").sample(10_000, seed=0)
    figures = mode_figures(draws)
    assert figures["modes"] == 25
    # Within three standard deviations in the plane.
    assert figures["inside"] == pytest.approx(1 - np.exp(-4.5), abs=0.004)
    right = draws[draws[:, 0] > 0.7]
    assert mode_figures(right)["modes"] == 10


def test_the_swiss_roll_has_a_density():
    log_normalizer, _ = normalize(lambda points: log_density("swiss_roll", points), size=80)
    assert log_normalizer == pytest.approx(0.0, abs=1e-4)
    points = toy("swiss_roll").sample(5000, seed=0)
    # A mean over the density is a mean over draws: that of its square, here.
    middles = np.stack(np.meshgrid(*2 * [np.arange(-3.95, 4.0, 0.1)]), axis=-1).reshape(-1, 2)
    expected = np.sum(np.exp(2 * log_density("swiss_roll", middles))) * 0.1**2
    found = np.exp(log_density("swiss_roll", points))
    assert found.mean() == pytest.approx(expected, abs=4 * found.std() / np.sqrt(5000))


def test_bounds_of_equal_ratios_meet():
    found = bounds(np.full(100, 0.5), np.zeros(100))
    assert found["lower"] == pytest.approx(0.5)
    assert found["estimate"] == pytest.approx(0.5)
    assert found["effective share"] == pytest.approx(1.0)
    assert found["error, lower"] == found["penalty"] == found["error, penalty"] == 0.0


@pytest.mark.parametrize(
    ("values", "failed"),
    [([-4.0, -3.0], True), ([-4.0, -3.0, -5.0], True), ([-4, -3, -3.5], False)],
)
def test_a_run_that_stops_or_gets_worse_has_failed(values, failed, monkeypatch):
    monkeypatch.setattr(bounds_planes, "NUM_LOOKS", 2)
    figures = {"scale at data": 1.0, "scale at draws": 2.0}
    looks = [figures | {"log-likelihood": value} for value in values]
    found = bounds_planes.summarize("swiss_roll", np.zeros((1, 2)), looks)
    assert found["failed"] == failed
    assert found["drop"] == max(values) - values[-1]
    assert found["largest scale"] == 2.0
