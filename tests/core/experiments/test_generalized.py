"""Figures of generalized energy-based models in the plane."""

import numpy as np
import pytest
from evidence.experiments.generalized import BANDWIDTHS, discrepancies, kale, resample, unbiased


def normal(seed, *, mean=0.0, count=300):
    return np.random.default_rng(seed).standard_normal((count, 2)) + mean


def expected_kernel(distance, variance):
    """Mean kernel of two independent normal points, in two dimensions."""
    widths = np.square(BANDWIDTHS)
    return np.mean(widths / (widths + variance) * np.exp(-(distance**2) / (widths + variance) / 2))


def test_discrepancy_of_two_normals():
    """The estimate is unbiased, and its standard error right."""
    found = [
        unbiased(discrepancies(normal(seed, mean=0.3), normal(100 + seed))) for seed in range(50)
    ]
    values, errors = (
        np.array([getattr(one, name) for one in found]) for name in ("value", "standard_error")
    )
    truth = 2 * (expected_kernel(0.0, 2.0) - expected_kernel(0.3 * np.sqrt(2), 2.0))
    assert np.mean(values) == pytest.approx(truth, abs=4 * np.std(values) / np.sqrt(50))
    # The standard deviation of 50 values is known to a tenth.
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.4)


def test_discrepancy_of_equal_distributions():
    values = [unbiased(discrepancies(normal(seed), normal(100 + seed))).value for seed in range(50)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(50)


def test_difference_of_discrepancies():
    x, z, y = normal(0, mean=1.0), normal(1), normal(2)
    gain = unbiased(discrepancies(x, y) - discrepancies(z, y))
    one, other = (unbiased(discrepancies(points, y)) for points in (x, z))
    assert gain.value == pytest.approx(one.value - other.value, abs=1e-12)
    assert gain.value > 4 * gain.standard_error


def test_kale_of_a_discrete_base():
    """Base (.2, .3, .5), data (.5, .3, .2), energies (0, .5, 1)."""
    energies = np.array([0.0, 0.5, 1.0])
    on_data, on_base = (np.repeat(energies, counts) for counts in ([5, 3, 2], [2, 3, 5]))
    assert kale(on_data, on_base).value == pytest.approx(0.2193398059513868, abs=1e-12)
    assert kale(on_data + 1e4, on_base + 1e4).value == pytest.approx(0.2193398059513868, abs=1e-8)


def test_standard_error_of_kale():
    """Energy -x, data N(.5, 1), base N(0, 1): .5 - .5."""
    draws = np.random.default_rng(0).standard_normal((200, 2, 1000))
    found = [kale(-(0.5 + on_data), -on_base) for on_data, on_base in draws]
    values, errors = zip(*((one.value, one.standard_error) for one in found), strict=True)
    assert np.mean(values) == pytest.approx(0.0, abs=4 * np.std(values) / np.sqrt(200) + 1e-3)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.2)


def test_resampling_follows_the_weights():
    draws = np.repeat([[0.0], [1.0]], 5000, axis=0)
    energies = np.where(draws[:, 0] == 1.0, -np.log(3.0), 0.0) - 1e4
    share = resample(draws, energies, 10_000, seed=0).mean()
    assert share == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / 10_000))
