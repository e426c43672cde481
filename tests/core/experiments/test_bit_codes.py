"""Discrepancy of samples of bits against that of their laws."""

import numpy as np
import pytest
from evidence.experiments.bit_codes import discrepancy


def test_discrepancy_of_independent_bits():
    rng = np.random.default_rng(0)
    first, second = np.array([0.5, 0.1, 0.9]), np.array([0.5, 0.7, 0.9])
    x, y = ((rng.uniform(size=(3000, 3)) < p).astype(np.float32) for p in (first, second))

    def mean_kernel(p, q):
        differ = p * (1 - q) + q * (1 - p)
        return np.prod(1 - differ + differ * np.exp(-0.1))

    exact = mean_kernel(first, first) + mean_kernel(second, second) - 2 * mean_kernel(first, second)
    assert discrepancy(x, y) == pytest.approx(exact, abs=3.5e-3)
    assert abs(discrepancy(x[:1500], x[1500:])) < 2e-4
