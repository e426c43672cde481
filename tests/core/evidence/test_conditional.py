"""Doubts about the constant of a learned likelihood: chance, a wrong posterior, or none."""

import numpy as np
import pytest

from pyro_ebm.core.evidence.conditional import ConditionalCheck, LogNormalizers, describe_doubts


def doubts(shift, error, spread=0.0, size=50.0):
    log_z = LogNormalizers(np.array([-spread, spread]), size)
    shift, error = {"theta": np.array(shift)}, {"theta": np.array(error)}
    return [*describe_doubts(ConditionalCheck(log_z, log_z, shift, error, 1000))]


@pytest.mark.parametrize(
    ("shift", "error", "remedy"),
    [([0.05, 0.13], [0.03, 0.07], "It may be chance"), ([0.05, 0.13], [0.01, 0.02], "Train for")],
)
def test_a_move_that_may_be_chance(shift, error, remedy):
    (doubt,) = doubts(shift, error)
    assert f"moves by 0.130 standard deviations (standard error {error[1]:.3f})" in doubt
    assert remedy in doubt


def test_a_standard_error_from_few_samples_is_rough():
    (doubt,) = doubts([0.17], [0.06], size=17.0)
    assert "It may be chance" in doubt
    (doubt,) = doubts([0.17], [0.06], size=31.0)
    assert "Train for" in doubt


def test_no_doubt():
    assert doubts([0.05, 0.09], [0.01, 0.01], spread=0.09) == []


def test_a_spread_that_moves_no_mean():
    (doubt,) = doubts([0.05], [0.01], spread=0.2)
    assert "spread of log Z 0.200 nats" in doubt
    assert "Train for longer" in doubt
