"""The comparison of objectives in the plane: what it reports of a model that it cannot fault."""

import numpy as np
import pytest
from planes import SEEDS, SETTINGS, TOYS, cells, print_tables, score

from pyro_ebm.datasets import toy


@pytest.mark.parametrize("name", TOYS)
def test_the_true_density_scores_like_itself(name):
    """Whatever its normalizer is."""

    def shifted(points):
        return toy(name).log_density(points) + 3.0

    figures = score(shifted, name, 0, num_test=1000, grid_size=160)
    assert figures["difference"] == pytest.approx(0.0, abs=1e-4)
    assert figures["log-likelihood"] == pytest.approx(figures["truth"], abs=1e-4)
    assert figures["boundary mass"] < 1e-12


def test_a_model_off_the_data_is_told_by_how_much():
    """Uniform on the grid: its density is known, and how much of it lies near the edge."""
    figures = score(lambda points: np.zeros(len(points)), "checkerboard", 0, num_test=1000)
    assert figures["log-likelihood"] == pytest.approx(-np.log(16.0**2), abs=1e-6)
    assert figures["truth"] == pytest.approx(-np.log(32.0))
    assert figures["difference"] == pytest.approx(-np.log(8.0), abs=1e-6)
    assert figures["boundary mass"] == pytest.approx(1 - (15 / 16) ** 2, abs=1e-6)


def test_tables_have_means_and_standard_errors_over_seeds(capsys):
    figures = {"log-likelihood": -3.0, "difference": -0.5, "truth": -2.5}
    rows = [
        {"cell": cell, **{name: value + cell["seed"] for name, value in figures.items()}}
        for cell in cells()
    ]
    assert len(rows) == len(TOYS) * len(SETTINGS) * len(SEEDS)
    print_tables(rows)
    lines = capsys.readouterr().out.splitlines()
    # Of 0, 1 and 2: mean 1, standard deviation 1.
    for mean, count in (("-1.500 (0.577)", 1), ("-2.000 (0.577)", 9), ("0.500 (0.577)", 9)):
        assert sum(line.count(f" {mean}") == len(TOYS) for line in lines) == count
