"""Figures of energies between bounds in the plane."""

import numpy as np
import pytest
from evidence.experiments.bounds_planes import log_density, mode_figures, summarize
from evidence.measures import bounds
from evidence.plane import normalize

from pyro_ebm.datasets import toy


def test_modes_of_true_draws():
    draws = toy("25_gaussians").sample(10_000, seed=0)
    figures = mode_figures(draws)
    assert figures["modes"] == 25
    # Within three standard deviations in the plane.
    assert figures["inside"] == pytest.approx(1 - np.exp(-4.5), abs=0.004)
    right = draws[draws[:, 0] > 0.7]
    assert mode_figures(right)["modes"] == 10


def test_density_of_the_swiss_roll():
    log_normalizer, _ = normalize(lambda points: log_density("swiss_roll", points), size=80)
    assert log_normalizer == pytest.approx(0.0, abs=1e-4)
    points = toy("swiss_roll").sample(5000, seed=0)
    # A mean over the density is a mean over draws: that of its square, here.
    middles = np.stack(np.meshgrid(*2 * [np.arange(-3.95, 4.0, 0.1)]), axis=-1).reshape(-1, 2)
    expected = np.sum(np.exp(2 * log_density("swiss_roll", middles))) * 0.1**2
    found = np.exp(log_density("swiss_roll", points))
    assert found.mean() == pytest.approx(expected, abs=4 * found.std() / np.sqrt(5000))


def test_bounds_of_equal_log_ratios():
    found = bounds(np.full(100, 0.5), np.zeros((100, 2)))
    assert found["lower"] == pytest.approx(0.5)
    assert found["estimate"] == pytest.approx(0.5)
    assert found["effective share"] == pytest.approx(1.0)
    assert found["error, lower"] == found["penalty"] == found["error, penalty"] == 0.0


@pytest.mark.parametrize(
    ("values", "failed"),
    [([-4.0, -3.0], True), ([-4.0, -3.0, -5.0], True), ([-4, -3, -3.5], False)],
)
def test_failure_of_a_run_that_stops_or_gets_worse(values, failed):
    figures = {"scale at data": 1.0, "scale at draws": 2.0, "effective share": 0.5}
    looks = [figures | {"log-likelihood": value} for value in values]
    found = summarize(looks, num_looks=2)
    assert found["failed"] == failed
    assert found["drop"] == max(values) - values[-1]
    assert found["largest scale"] == 2.0


def test_penalty_is_the_mean_half_square_of_slopes():
    found = bounds(np.zeros(4), np.array([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0], [1.0, 1.0]]))
    assert found["penalty"] == pytest.approx((5 + 1 + 9 + 2) / 8)
