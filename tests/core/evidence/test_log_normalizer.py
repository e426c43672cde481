import math

import numpy as np
import pytest

from pyro_ebm.core.evidence.log_normalizer import (
    LogNormalizer,
    LogNormalizerSettings,
    check_log_weights,
    describe_doubts,
)
from pyro_ebm.core.evidence.weights import bracket
from pyro_ebm.core.samplers.settings import Langevin


def result(estimate, width=0.02, size=50.0, num_weights=100):
    estimate, size = np.asarray(estimate), np.asarray(size)
    ends = estimate - width / 2, estimate + width / 2
    weights = None if num_weights is None else np.zeros((num_weights, *estimate.shape))
    return LogNormalizer(estimate, *ends, 0 * estimate + 0.004, size, weights, None)


def test_results_are_sentences():
    expected = "log Z = -1.386 ± 0.004 in [-1.396, -1.376], effective samples 50 of 100"
    assert str(result(-1.386)) == expected
    assert str(result(-1.386, math.inf)).split(", eff")[0].endswith("in [-inf, inf]")
    grid = result(-1.386, num_weights=None)
    assert str(grid) == "log Z = -1.386 ± 0.004 in [-1.396, -1.376]"
    assert "log_weights" not in repr(grid)
    lines = str(result(np.zeros((4, 3)), size=np.full((4, 3), 7.0))).splitlines()
    assert lines[4].startswith("[1, 1]: log Z = 0.000 ± 0.004")
    assert lines[10:] == ["... 2 more"]


def test_bad_log_weights_are_refused():
    check_log_weights("it", np.array([0.0, -math.inf]), "draws")
    with pytest.raises(ValueError, match="finite at some of draws, got infinity on all of 400"):
        check_log_weights("it", np.full(400, -math.inf), "draws")
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="energy of it .* at draws, got .* on 1 of 3 paths"):
            check_log_weights("it", np.array([0.0, bad, 1.0]), "draws")


def test_doubts_name_what_and_how_much():
    assert list(describe_doubts("prior", result([1.0, 2.0], size=[50.0, 60.0]))) == []
    few = bracket(np.array([0.0, 30.0]))
    (doubt,) = describe_doubts("prior", few)
    assert "effective sample size of log Z of prior is 1.0 of 2" in doubt
    assert f"{few.estimate:.2f}, with a bracket from {few.lower:.2f} to inf" in doubt
    (doubt,) = describe_doubts("prior", result([1.0, 2.0], width=3.0))
    assert "between [-0.50, 0.50] and [2.50, 3.50], up to 3.00 nats apart" in doubt
    (doubt,) = describe_doubts("prior", result(1.0, width=3.0, num_weights=None))
    assert "The grid is too coarse" in doubt
    (doubt,) = describe_doubts("prior", result([1.0] * 5000, width=3.0))
    assert "[-0.50, -0.50, -0.50, ..., -0.50, -0.50, -0.50] and [2.50" in doubt


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "magic"}, ValueError, "`method` to be one of .*, got 'magic'"),
        ({"num_samples": 0}, ValueError, "`num_samples` to be an integer of at least 1, got 0"),
        ({"num_moves": 0}, ValueError, "`num_moves` to be an integer of at least 1, got 0"),
        ({"sampler": Langevin(0.1)}, ValueError, "accepts or rejects .* got Langevin"),
        ({"sampler": 0.1}, TypeError, "to have init and step"),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        LogNormalizerSettings(**options)
