"""Discrepancy of samples of bits against that of their laws."""

import numpy as np
import pytest
from evidence.experiments.bit_codes import discrepancy
from numpy.random import PCG64, Generator

from pyro_ebm.datasets import codes


def test_discrepancy_of_independent_bits():
    rng = np.random.default_rng(0)
    first, second = np.array([0.5, 0.1, 0.9]), np.array([0.5, 0.7, 0.9])

    def mean_kernel(p, q):
        differ = p * (1 - q) + q * (1 - p)
        return np.prod(1 - differ + differ * np.exp(-0.1))

    exact = mean_kernel(first, first) + mean_kernel(second, second) - 2 * mean_kernel(first, second)
    pairs = [
        [(rng.uniform(size=(3000, 3)) < p).astype(np.float32) for p in (first, second)]
        for _ in range(12)
    ]
    assert np.mean([discrepancy(x, y) for x, y in pairs]) == pytest.approx(exact, abs=3.5e-3)
    assert abs(np.mean([discrepancy(x[:1500], x[1500:]) for x, _ in pairs])) < 2e-4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *[("two_spirals", 20.040), ("8_gaussians", 20.050), ("circles", 20.544)],
        *[("two_moons", 19.752), ("pinwheel", 19.451), ("swiss_roll", 20.139)],
        ("checkerboard", 20.677),
    ],
)
def test_no_model_is_better_than_the_law(name, expected):
    """The entropy of the bits, where the density is known: cells are small beside its details."""
    toy, rng = codes(name).toy, lambda seed: Generator(PCG64(seed))
    side = (abs(toy.draw(rng(1), 5000)).max() + 2) / 2**15
    entropy = -toy.log_density(toy.draw(rng(10_000), 40_000)).mean()
    assert entropy - 2 * np.log(side) == pytest.approx(expected, abs=2e-3)
