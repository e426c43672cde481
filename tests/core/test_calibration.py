"""Ranks, their counts and tests."""

import numpy as np
import pytest
from scipy import stats

from pyro_ebm.calibration import CalibrationSettings, check_simulated, collect, rank
from pyro_ebm.diagnostics import Chains

rng = np.random.default_rng(0)


def ranked(num_simulations, num_draws, scale=1.0, shift=0.0):
    """Calibration of draws around truths from a standard normal."""
    settings = CalibrationSettings(num_simulations=num_simulations, num_draws=num_draws)
    draws = shift + scale * rng.normal(size=(num_draws, num_simulations, 2))
    return rank(rng.normal(size=(num_simulations, 2)), draws, settings)


def test_ranks():
    settings = CalibrationSettings(num_simulations=3, num_draws=4)
    draws = np.array([[0.0, 1.0, 2.0]] * 3 + [[5.0, 5.0, 5.0]])
    assert rank(np.array([-1.0, 1.5, 6.0]), draws, settings).ranks.tolist() == [0, 3, 4]


def test_p_values_are_those_of_a_chi_square_test():
    """Also where bins hold different numbers of ranks."""
    calibration = ranked(500, 50)
    counts, expected = calibration.counts
    assert counts.shape == (20, 2)
    np.testing.assert_allclose(counts.sum(0), 500)
    np.testing.assert_allclose(expected.sum(), 500)
    assert set(np.round(expected * 51 / 500)) == {2.0, 3.0}
    np.testing.assert_allclose(calibration.p_values, stats.chisquare(counts, expected[:, None])[1])


def test_posteriors_that_are_right_or_wrong():
    p_values = np.concatenate([ranked(200, 99).p_values for _ in range(200)])
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3
    assert ranked(500, 99, scale=0.7).p_values.max() < 1e-6
    wrong = ranked(500, 99, shift=0.3)
    assert wrong.p_values.max() < 1e-4
    assert str(wrong).startswith("ranks in 500 simulations, among 99 draws each: smallest p-value")


def test_ties_have_a_random_place():
    settings = CalibrationSettings(num_simulations=1000, num_draws=99)
    truth, draws = (rng.binomial(2, 0.3, size=shape) for shape in (1000, (99, 1000)))
    assert rank(truth, draws, settings).p_values > 1e-3
    assert rank(truth, np.maximum(draws, 1), settings).p_values < 1e-10


def test_numbers_that_are_none():
    x = np.zeros((10, 4, 2))
    x[3, 1, 0] = x[5, 1, 1] = np.nan
    with pytest.raises(ValueError, match="`posterior` to give .* got NaN in 1 of 4 simulations"):
        collect(x, (4, 2), 10)
    with pytest.raises(ValueError, match="`simulator` to give .* got NaN in 2 of 10 simulations"):
        check_simulated(x, 10)


def test_draws_are_evenly_spaced():
    draws = np.arange(10.0)[:, None]
    assert collect(draws, (1,), 3)[:, 0].tolist() == [2, 5, 8]
    chains = Chains(draws.reshape(2, 5, 1), {}, state=None)
    assert collect(chains, (1,), 5)[:, 0].tolist() == [1, 3, 5, 7, 9]
    with pytest.raises(
        ValueError, match=r"11 draws or more, each of shape \(1,\), got .* \(10, 1\)"
    ):
        collect(draws, (1,), 11)
    with pytest.raises(ValueError, match=r"each of shape \(2,\), got an array of shape \(10, 1\)"):
        collect(draws, (2,), 3)


def test_batches():
    settings = CalibrationSettings(num_simulations=5, batch_size=2)
    assert [(rows.start, rows.stop) for rows in settings.batches()] == [(0, 2), (2, 4), (4, 5)]
    assert len(list(CalibrationSettings(num_simulations=5).batches())) == 1
