import math

import array_api_strict
import numpy as np
import pytest

from pyro_ebm.core.evidence.log_marginal import (
    describe_doubts,
    inverse_temperatures,
    summarize_log_marginal,
)

rng = np.random.default_rng(0)


def test_log_normalizers_and_their_errors_are_taken_off():
    log_weights = rng.normal(size=(50, 3))
    common = np.array([0.0, 0.3, 4.0])
    result = summarize_log_marginal(log_weights, np.full(3, 2.0), common)
    weights = np.exp(log_weights)
    np.testing.assert_allclose(result.estimate, np.log(weights.mean(0)) - 2.0)
    # Delta method: the standard error of the mean weight, relative to it.
    own = weights.std(axis=0) / math.sqrt(50) / weights.mean(0)
    np.testing.assert_allclose(result.standard_error, np.hypot(own, common))
    np.testing.assert_array_equal(result.log_normalizer_error, common)
    strict = summarize_log_marginal(*map(array_api_strict.asarray, (log_weights, common, common)))
    np.testing.assert_allclose(np.asarray(strict.standard_error), result.standard_error)


def test_few_samples_are_pointed_out():
    log_weights = rng.normal(size=(50, 3)) * np.array([0.1, 30.0, 0.1])
    result = summarize_log_marginal(log_weights, 0.0, 0.0)
    (doubt,) = describe_doubts(result)
    assert "less than 10 at 1 of 3 data points" in doubt
    assert not list(describe_doubts(summarize_log_marginal(log_weights[:, 2], 0.0, 0.0)))


def test_temperatures_are_dense_near_the_prior():
    path = inverse_temperatures(10)
    assert len(path) == 10
    assert path[-1] == 1.0
    assert path[0] == pytest.approx(1e-4)
    assert np.all(np.diff(path) > 0)
