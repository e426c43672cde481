"""The comparison of objectives in the plane, shortened to one that has chains and a critic."""

import pytest
from planes import score
from planes_numpyro import log_density, train


@pytest.mark.usefixtures("optimized")
def test_a_short_run_comes_closer_to_the_data():
    density = log_density(train("two_spirals", "f-EBM, Jensen-Shannon", 0, 200_000))
    figures = score(density, "two_spirals", 0, num_test=1000, grid_size=160)
    assert figures["difference"] > -1.3  # the base alone: -1.6
