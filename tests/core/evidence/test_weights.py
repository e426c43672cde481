import math

import array_api_strict
import numpy as np
import pytest

from pyro_ebm.core.evidence.weights import bracket, summarize_log_weights

TRUTH = 7.0
NUM_RUNS = 400


def paths(spread, num_forward, num_reverse, num_runs=NUM_RUNS, seed=0):
    """Log-weights there and back, of the only normal laws that Crooks' theorem allows."""
    rng = np.random.default_rng(seed)
    forward = TRUTH - spread**2 / 2 + spread * rng.normal(size=(num_forward, num_runs))
    reverse = TRUTH + spread**2 / 2 + spread * rng.normal(size=(num_reverse, num_runs))
    return forward, reverse


def share(condition):
    return float(np.mean(condition))


@pytest.mark.parametrize(("num_forward", "num_reverse"), [(400, 400), (400, 100), (100, 400)])
@pytest.mark.parametrize("spread", [0.3, 1.0, 1.7])
def test_brackets_cover_the_truth(spread, num_forward, num_reverse):
    result = bracket(*paths(spread, num_forward, num_reverse))
    assert share(result.lower < TRUTH) > 0.96
    assert share(result.upper > TRUTH) > 0.96
    assert np.std(result.estimate) == pytest.approx(np.mean(result.standard_error), rel=0.15)
    assert abs(np.mean(result.estimate) - TRUTH) < 4 * np.std(result.estimate) / math.sqrt(NUM_RUNS)


def test_bennetts_ratio_beats_either_direction():
    forward, reverse = paths(2.0, 300, 300)
    one_way, back = bracket(forward).estimate, -bracket(-reverse).estimate
    both = bracket(forward, reverse).estimate
    errors = [np.sqrt(np.mean((x - TRUTH) ** 2)) for x in (one_way, back, (one_way + back) / 2)]
    assert 1.5 * np.sqrt(np.mean((both - TRUTH) ** 2)) < min(errors)


def test_collapsed_weights_widen_the_bracket():
    forward, reverse = paths(8.0, 200, 200)
    alone, own = bracket(forward), bracket(forward, reverse, own_draws=True)
    for result in (alone, own):
        assert share(result.lower < TRUTH) == 1
        collapsed = result.effective_sample_size < 10
        assert share(collapsed) > 0.95
        assert np.all(np.isinf(result.standard_error[collapsed]))
        assert np.all(result.upper[collapsed] == math.inf)
    exact = bracket(forward, reverse)
    assert share((exact.lower < TRUTH) & (exact.upper > TRUTH)) == 1
    assert np.all(np.isfinite(exact.upper))
    few = exact.standard_error > 1.5  # more than two directions of one sample each could say
    assert share(few) > 0.95
    width = exact.upper - exact.lower
    np.testing.assert_allclose(exact.standard_error[few], width[few] / 2)


def test_own_draws_widen_the_bracket():
    forward, reverse = paths(1.2, 300, 300)
    own, exact = bracket(forward, reverse, own_draws=True), bracket(forward, reverse)
    assert np.all(own.upper > exact.upper)
    assert np.all(own.standard_error > exact.standard_error)
    trusted = own.effective_sample_size >= 10
    np.testing.assert_allclose(own.estimate[trusted], exact.estimate[trusted])


def test_shifts_mirrors_and_other_array_libraries():
    forward, reverse = paths(1.0, 50, 30, num_runs=3)
    result, far = bracket(forward, reverse), bracket(forward - 1e4, reverse - 1e4)
    strict = bracket(array_api_strict.asarray(forward), array_api_strict.asarray(reverse))
    for name in ("estimate", "lower", "upper"):
        np.testing.assert_allclose(getattr(far, name), getattr(result, name) - 1e4, atol=1e-6)
    for name in vars(result):
        one, other = getattr(result, name), np.asarray(getattr(strict, name))
        np.testing.assert_allclose(one, other, rtol=1e-12)
    # Exchanging the directions exchanges the bounds.
    mirrored = bracket(-reverse, -forward)
    np.testing.assert_allclose(mirrored.estimate, -result.estimate, atol=1e-6)
    np.testing.assert_allclose(mirrored.lower, -result.upper, atol=1e-6)


def test_one_weight_has_an_unknown_error():
    result = summarize_log_weights(np.array([[-2.0, 1.0]]))
    np.testing.assert_array_equal(result.estimate, [-2.0, 1.0])
    assert (result.standard_error == math.inf).all()
    assert (result.lower == -math.inf).all()


def test_dead_paths_have_no_weight():
    # A quarter of the base has all the density, evenly.
    forward = np.where(np.arange(400) < 100, math.log(4.0), -math.inf)
    result = bracket(forward, np.full(400, math.log(4.0)))
    assert result.lower < 0 < result.upper


def test_weights_in_half_precision():
    """Their mean and its error are as good as in double precision."""
    log_weights = np.random.default_rng(0).normal(size=4096).astype(np.float16)
    found, exact = (summarize_log_weights(log_weights.astype(x)) for x in (np.float16, float))
    assert float(found.estimate) == pytest.approx(float(exact.estimate), abs=1e-5)
    assert float(found.standard_error) == pytest.approx(float(exact.standard_error), rel=1e-4)
