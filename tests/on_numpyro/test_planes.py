"""The comparison of objectives in the plane, shortened."""

import pytest
from jax import random
from planes import score
from planes_numpyro import log_density, mlp, train

SHORT = ("energy discrepancy", "persistent contrastive divergence", "f-EBM, Jensen-Shannon")


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("objective", SHORT)
def test_a_short_run_comes_closer_to_the_data(objective):
    def difference(energy):
        figures = score(log_density(energy), "two_spirals", 0, num_test=1000, grid_size=160)
        return figures["difference"]

    trained = train("two_spirals", objective, 0, 100_000)
    assert difference(trained) > difference(mlp(random.key(0))) + 0.3
