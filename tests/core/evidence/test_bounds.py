import math

import array_api_strict
import numpy as np
import pytest
from helpers import bound_cases as known

from pyro_ebm.core.evidence.bounds import GeneratorBoundsSettings, summarize_bounds

EXACT = GeneratorBoundsSettings(log_sobolev_constant=0.4)


def draws(num_draws, seed=0):
    rng = np.random.default_rng(seed)
    log_ratio = rng.normal(size=num_draws)
    return log_ratio, 0.5 * (log_ratio + rng.normal(size=num_draws)) ** 2


def test_bounds_are_their_formulas():
    log_ratio, half_squared_norms = draws(55)
    result = summarize_bounds(log_ratio, half_squared_norms, EXACT)
    error = np.std(log_ratio, ddof=1) / math.sqrt(55)
    assert result.mean_log_ratio == pytest.approx(log_ratio.mean())
    assert result.lower == pytest.approx(log_ratio.mean() - 2 * error)
    both = log_ratio + half_squared_norms / 0.4
    assert result.upper == pytest.approx(both.mean() + 2 * both.std(ddof=1) / math.sqrt(55))
    assert result.penalty == pytest.approx(half_squared_norms.mean())
    assert result.estimate == pytest.approx(np.log(np.exp(log_ratio).mean()))
    assert str(result).startswith(f"log Z = {result.estimate:.3f} ± {result.standard_error:.3f}")
    assert str(result).endswith(f"effective samples {result.effective_sample_size:.0f} of 55")
    strict = summarize_bounds(*map(array_api_strict.asarray, draws(55)), EXACT)
    for name, number in vars(result).items():
        np.testing.assert_allclose(np.asarray(getattr(strict, name)), number)


def test_a_penalty_alone_bounds_nothing():
    result = summarize_bounds(*draws(20), GeneratorBoundsSettings())
    assert result.upper == math.inf
    estimated = summarize_bounds(*draws(20), GeneratorBoundsSettings(entropy="stochastic"))
    assert estimated.lower == -math.inf
    assert estimated.mean_log_ratio == result.mean_log_ratio
    # Noise of the entropy makes E[e^f] too large.
    assert estimated.standard_error == math.inf > result.standard_error


def test_a_log_sobolev_constant_makes_a_penalty_a_bound():
    # Concave up to 0.36, and two modes that are not concave at all.
    shifted, missed = known.SHIFTED, known.MISSED[1.0]
    assert shifted.penalty / 0.36 == pytest.approx(0.33660, abs=1e-4)
    assert shifted.log_normalizer - shifted.mean < shifted.penalty
    assert missed.log_normalizer - missed.mean > missed.penalty
    for a, bound in {0.5: 0.25, 1.0: 0.25, 1.5: 1.36111}.items():
        case = known.CASES[f"scaled by {a}"]
        assert case.penalty / (2 * a**2) == pytest.approx(bound, abs=1e-5)
        assert case.mean < case.log_normalizer < case.mean + bound


def test_bounds_cover_their_means():
    settings = GeneratorBoundsSettings(log_sobolev_constant=2.0)
    runs = [summarize_bounds(*draws(100, seed), settings) for seed in range(400)]
    assert np.mean([run.lower < 0 for run in runs]) > 0.95
    assert np.mean([run.upper > 0.5 for run in runs]) > 0.92  # A skewed sum has a thin left tail.


@pytest.mark.parametrize(
    ("entropy", "num_iterations", "is_lower_bound"),
    [
        ("exact", None, True),
        ("noise", None, True),
        ("smallest_singular_value", None, True),
        ("smallest_singular_value", 2, False),
        ("stochastic", None, False),
    ],
)
def test_only_some_entropies_are_never_too_high(entropy, num_iterations, is_lower_bound):
    settings = GeneratorBoundsSettings(entropy=entropy, num_iterations=num_iterations)
    assert settings.is_lower_bound == is_lower_bound


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entropy": "guess"}, "Expected `entropy` to be one of"),
        ({"num_samples": 1}, "Expected `num_samples` to be an integer of at least 2"),
        ({"log_sobolev_constant": 0.0}, "Expected `log_sobolev_constant` to be a positive"),
        (
            {"log_sobolev_constant": 1.0, "entropy": "smallest_singular_value"},
            "Expected entropy='exact' or 'noise' with a `log_sobolev_constant`",
        ),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        GeneratorBoundsSettings(**options)


def test_entropy_of_probabilistic_pca():
    log_det = 2 * np.log(np.diag(known.MARGINAL_FACTOR)).sum()
    assert 0.5 * (5 * math.log(2 * math.pi * math.e) + log_det) == pytest.approx(known.ENTROPY)
