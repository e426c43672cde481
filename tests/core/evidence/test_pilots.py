import numpy as np
import pytest

from pyro_ebm.core.evidence.pilots import begin_pilots, tune_log_step_size
from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.settings import MALA


def test_step_sizes_at_the_start():
    """In local units, that of a Gaussian; without, that of the state; one for each context."""
    scales = np.array([[0.1, 10.0], [1e-3, 1.0]])
    position = np.random.default_rng(0).normal(size=(1000, 2, 2)) * scales
    potential, gradient = 0.5 * ((position / scales) ** 2).sum(-1), position / scales**2
    potential[0] = np.inf
    state = ChainState(position, potential, gradient, None, np.ones(()), np.ones(()), 0)
    local = begin_pilots(MALA(), state, learns=True)
    np.testing.assert_allclose(local.step_size, 2 * [2 ** (-1 / 3)], rtol=0.1)
    np.testing.assert_allclose(local.scale, scales, rtol=0.1)
    other = begin_pilots(MALA(), state, learns=False)
    assert other.step_size.tolist() == [1.0, 1.0]
    assert other.scale == 1.0


def test_tuning_moves_towards_the_target():
    assert tune_log_step_size(0.0, 0.9, 0.6) == pytest.approx(0.3)
    assert tune_log_step_size(0.0, 0.0, 0.6) == pytest.approx(-0.6)
