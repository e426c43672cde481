from types import SimpleNamespace

import numpy as np
import pytest

from pyro_ebm.core.evidence.pilots import (
    begin_pilots,
    in_local_units,
    masked_mean,
    masked_std,
    tune_log_step_size,
)
from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.settings import MALA, Langevin

rng = np.random.default_rng(0)


def pilots():
    """Chains on a normal law of scales .1 and 10, two of them outside of its support."""
    position, scales = rng.normal(size=(1000, 2)) * [0.1, 10.0], np.array([0.1, 10.0])
    potential = np.where(np.arange(1000) < 2, np.inf, 0.5 * ((position / scales) ** 2).sum(-1))
    gradient = np.where(potential[:, None] < np.inf, position / scales**2, np.nan)
    return ChainState(position, potential, gradient, None, np.ones(()), np.ones(()), 0)


@pytest.mark.parametrize("has_gradients", [True, False])
def test_local_units(has_gradients):
    state = pilots() if has_gradients else pilots()._replace(gradient=None)
    found = in_local_units(MALA(), state)
    np.testing.assert_allclose(found.scale, [0.1, 10.0], rtol=0.1)
    for kernel in (
        Langevin(0.1),
        MALA(adapt_mass_matrix=False),
        MALA(0.1, target_accept_prob=None),
    ):
        assert in_local_units(kernel, state) is state
    levels = SimpleNamespace(target_accept_prob=0.6, adapt_mass_matrix=True, temperatures=(4, 1))
    assert in_local_units(levels, state) is state


def test_step_sizes_at_the_start():
    """In local units, that of a Gaussian; without, that of the state."""
    state = pilots()
    # The rule of thumb sees NaN outside, and takes the most.
    assert begin_pilots(MALA(), state, learns=True).step_size == pytest.approx(2 ** (-1 / 3))
    assert begin_pilots(MALA(), state, learns=False).step_size == 1.0


def test_masked_statistics():
    keep = np.array([[True, True], [True, False], [False, False]])
    x = np.array([[1.0, 5.0], [3.0, -np.inf], [np.nan, -np.inf]])
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(masked_mean(keep, x), [2, 5])
        np.testing.assert_allclose(masked_std(keep, x), [1, 0])
        np.testing.assert_allclose(masked_mean(~keep & keep, x), [0, 0])


def test_tuning_moves_towards_the_target():
    assert tune_log_step_size(0.0, 0.9, 0.6) == pytest.approx(0.3)
    assert tune_log_step_size(0.0, 0.0, 0.6) == pytest.approx(-0.6)
