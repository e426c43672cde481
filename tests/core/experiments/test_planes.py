"""Figures of the comparison of objectives in the plane, for models that are known."""

import numpy as np
import pytest
from evidence.experiments.planes import TOYS, score

from pyro_ebm.datasets import toy


@pytest.mark.parametrize("name", TOYS)
def test_score_of_the_true_density(name):
    """The density may be off by a factor."""

    def shifted(points):
        return toy(name).log_density(points) + 3.0

    figures = score(shifted, name, 0, num_test=1000, grid_size=160)
    assert figures["difference"] == pytest.approx(0.0, abs=1e-4)
    assert figures["log-likelihood"] == pytest.approx(figures["truth"], abs=1e-4)
    assert figures["boundary mass"] < 1e-12


def test_score_of_a_uniform_density():
    """Its density is known, and its share near the edge of the grid."""
    figures = score(lambda points: np.zeros(len(points)), "checkerboard", 0, num_test=1000)
    assert figures["log-likelihood"] == pytest.approx(-np.log(16.0**2), abs=1e-6)
    assert figures["truth"] == pytest.approx(-np.log(32.0))
    assert figures["difference"] == pytest.approx(-np.log(8.0), abs=1e-6)
    assert figures["boundary mass"] == pytest.approx(1 - (15 / 16) ** 2, abs=1e-6)
