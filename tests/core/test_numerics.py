import math

import numpy as np
import pytest
from scipy import special

from pyro_ebm.core.evidence.weights import summarize_log_weights
from pyro_ebm.core.numerics import (
    effective_sample_size,
    log_mean_exp,
    log_positive,
    logsumexp,
    masked_mean,
    masked_std,
)

rng = np.random.default_rng(0)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_logsumexp(axis):
    x = 500.0 * rng.normal(size=(4, 5, 6))
    np.testing.assert_allclose(logsumexp(x, axis), special.logsumexp(x, axis), rtol=1e-14)
    expected = special.logsumexp(x, axis) - math.log(x.shape[axis])
    np.testing.assert_allclose(log_mean_exp(x, axis), expected, rtol=1e-14)


def test_logsumexp_of_infinities():
    with np.errstate(divide="ignore"):
        assert logsumexp(np.array([-np.inf, -np.inf])) == -np.inf
    assert logsumexp(np.array([-np.inf, 2.0])) == 2.0
    assert logsumexp(np.array([np.inf, 2.0])) == np.inf


def test_log_positive():
    numbers = log_positive(np.array([1.0, 0.0, -2.0, np.nan]))
    assert numbers[:3] == pytest.approx([0, np.log(2.0**-1022), np.log(2.0**-1022)])
    assert np.isnan(numbers[3])


def test_summary_of_weights():
    weights = rng.gamma(2.0, size=(1000, 2))
    size = weights.sum(0) ** 2 / (weights**2).sum(0)
    np.testing.assert_allclose(effective_sample_size(np.log(weights)), size)
    result = summarize_log_weights(np.log(weights))
    mean, spread = weights.mean(0), weights.std(0)
    np.testing.assert_allclose(result.estimate, np.log(mean))
    np.testing.assert_allclose(result.standard_error, spread / mean / math.sqrt(1000))
    np.testing.assert_allclose(result.effective_sample_size, size)


def test_summary_of_equal_weights():
    equal = summarize_log_weights(np.full((7,), -1e4))
    assert (equal.estimate, equal.standard_error) == (-1e4, 0.0)
    assert equal.effective_sample_size == pytest.approx(7)


def test_effective_sample_size_of_half_precision():
    log_weights = rng.normal(size=20_000).astype(np.float16)
    exact = effective_sample_size(log_weights.astype(float))
    assert effective_sample_size(log_weights) == pytest.approx(exact, rel=0.01)


def test_no_weight_is_no_sample():
    assert effective_sample_size(np.array([-np.inf, -np.inf])) == 0.0
    with np.errstate(invalid="ignore"):
        assert np.isnan(effective_sample_size(np.array([np.nan, 0.0])))


def test_effective_sample_size_of_a_linear_energy():
    """About M exp(-|w|^2) of M draws from a standard normal, for a slope w."""
    size = effective_sample_size(rng.normal(size=(1_000_000, 2)) @ np.array([0.6, 0.8]))
    assert size / 1e6 == pytest.approx(math.exp(-1.0), rel=0.01)


@pytest.mark.parametrize("offset", [1e8, -1e8, 3e30])
def test_effective_sample_size_of_large_weights(offset):
    weights = np.full((55, 2), offset, np.float32)
    np.testing.assert_allclose(effective_sample_size(weights), 55, rtol=1e-5)


def test_shift_of_a_log_sum_has_no_derivative(monkeypatch):
    """That of a maximum compares its entries, and is NaN where a compiler rounds them otherwise."""
    jax, true_maximum = pytest.importorskip("jax"), pytest.importorskip("jax.numpy").max

    @jax.custom_jvp
    def maximum(x):
        return true_maximum(x, axis=0, keepdims=True)

    maximum.defjvps(lambda tangent, result, x: math.nan * tangent[:1])
    monkeypatch.setattr(jax.numpy, "max", lambda x, **_: maximum(x))
    x = np.array([0.3, -1.0, 2.4], np.float32)
    found = jax.grad(logsumexp)(jax.numpy.asarray(x))
    np.testing.assert_allclose(found, special.softmax(x), rtol=1e-6)


def test_masked_statistics():
    keep = np.array([[True, True], [True, False], [False, False]])
    x = np.array([[1.0, 5.0], [3.0, -np.inf], [np.nan, -np.inf]])
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(masked_mean(keep, x), [2, 5])
        np.testing.assert_allclose(masked_std(keep, x), [1, 0])
        np.testing.assert_allclose(masked_mean(~keep & keep, x), [0, 0])
