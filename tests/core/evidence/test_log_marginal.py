import math

import array_api_strict
import numpy as np
import pytest

from pyro_ebm.core.evidence.annealing import power_inverse_temperatures, schedule_of_pilot
from pyro_ebm.core.evidence.log_marginal import (
    LogMarginal,
    LogMarginalSettings,
    check_log_normalizers,
    describe_doubts,
    summarize_log_marginal,
)
from pyro_ebm.core.samplers.settings import KineticLangevin

rng = np.random.default_rng(0)


def test_log_normalizers_and_their_errors_are_subtracted():
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


def test_data_points_without_a_number():
    log_weights = rng.normal(size=(50, 3))
    log_weights[:, 1], log_weights[7, 2] = -math.inf, math.nan
    with np.errstate(all="ignore"):
        result = summarize_log_marginal(log_weights, 0.0, 0.0)
    assert result.estimate[1] == -math.inf
    assert result.standard_error[1] == math.inf
    assert result.effective_sample_size[1] == 0
    assert math.isnan(result.standard_error[2])
    bad, few = describe_doubts(result)
    assert "NaN at 1 of 3 data points" in bad
    assert "below 10 at 1 of 3 data points, down to 0.0" in few


def test_results_are_sentences():
    error, common = np.array([0.5, 0.4]), np.array([0.3, 0.0])
    result = LogMarginal(np.array([-2.0, -3.0]), error, np.array([80.0, 20.0]), common)
    expected = math.sqrt((0.4**2 + 0.4**2) / 4 + 0.15**2)
    assert str(result) == (
        f"log p(x) = -2.500 ± {expected:.3f}, mean of 2 data points, effective samples 20 or more"
    )
    one = LogMarginal(*map(np.asarray, (-2.0, 0.5, 80.0, 0.3)))
    assert str(one) == "log p(x) = -2.000 ± 0.500, effective samples 80 or more"


def test_few_samples_are_pointed_out():
    log_weights = rng.normal(size=(50, 3)) * np.array([0.1, 30.0, 0.1])
    (doubt,) = describe_doubts(summarize_log_marginal(log_weights, 0.0, 0.0))
    assert "below 10 at 1 of 3 data points" in doubt
    assert not list(describe_doubts(summarize_log_marginal(log_weights[:, 2], 0.0, 0.0)))


def test_temperatures_are_dense_near_the_prior():
    path = power_inverse_temperatures(10)
    assert len(path) == 11
    assert (path[0], path[-1]) == (0.0, 1.0)
    assert path[1] == pytest.approx(1e-4)
    assert np.all(np.diff(path) > 0)


def test_chains_repeat_the_step_sizes_of_the_pilot():
    schedule = schedule_of_pilot(np.arange(4), np.log([[1.0], [2.0], [3.0], [4.0]]))
    np.testing.assert_allclose(schedule.step_sizes, [[1.0], [1.0], [2.0], [3.0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "`method` to be one of .*, got 'magic'"),
        ({"num_samples": 0}, "`num_samples` to be an integer of at least 1, got 0"),
        ({"batch_size": 0}, "`batch_size` to be an integer of at least 1, got 0"),
        ({"method": "annealed", "sampler": KineticLangevin(0.1)}, "accepts or rejects its moves"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        LogMarginalSettings(**options)
    with pytest.raises(ValueError, match="a guide for method='importance', got None"):
        LogMarginalSettings().check_guide(None)
    with pytest.raises(ValueError, match=r"energy-based sites of the model \(\['x'\]\), got 'z'"):
        check_log_normalizers(["x", "z"], ["x"])


def test_an_unknown_error_is_infinite():
    """A log-normalizer with an infinite error, and one number of effective samples without end."""
    infinite = np.full(3, np.inf)
    result = LogMarginal(np.arange(3.0), infinite, infinite, infinite)
    assert str(result) == "log p(x) = 1.000 ± inf, mean of 3 data points"
