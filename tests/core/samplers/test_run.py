import math

import array_api_strict
import numpy as np
import pytest

from pyro_ebm.core.columns import Column
from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.gibbs import Gibbs
from pyro_ebm.core.samplers.replica_exchange import ReplicaExchange
from pyro_ebm.core.samplers.run import longest_step_size
from pyro_ebm.core.samplers.settings import HMC, MALA, Langevin


def state_at(position):
    potential = np.where(np.isnan(position).any(-1), np.nan, 0.0)
    numbers = map(array_api_strict.asarray, (position, potential, position))
    return ChainState(*numbers, None, 1.0, 1.0, 0)


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (MALA(), 0.125 * 8.0),
        (HMC(), 0.5 * 8.0**0.5),
        (Gibbs(MALA(), (Column.numeric(), Column.nominal(3))), 0.125 * 4.0),
        (ReplicaExchange(Gibbs(MALA(), (Column.numeric(), Column.nominal(3)))), 0.125 * 4.0),
    ],
)
def test_longest_step_size(sampler, expected):
    """The noise of a move has half the standard deviation of values, here of variance 4 and 12."""
    position = np.stack([np.tile([-2.0, 2.0], 4), np.repeat([-(12**0.5), 12**0.5], 4)], axis=-1)
    assert float(longest_step_size(sampler, state_at(position))) == pytest.approx(expected)
    missing = np.concatenate([position, [[np.nan, 1e6]]])
    assert float(longest_step_size(sampler, state_at(missing))) == pytest.approx(expected)


@pytest.mark.parametrize("sampler", [MALA(0.1), Langevin(0.1)])
def test_a_step_size_of_its_own_is_kept(sampler):
    assert longest_step_size(sampler, state_at(np.eye(2))) is None


@pytest.mark.parametrize("position", [[[1.0, 2.0]], [[1.0, 2.0]] * 3, [[1.0, math.nan]] * 3])
def test_values_without_a_spread_bound_nothing(position):
    assert float(longest_step_size(MALA(), state_at(np.asarray(position)))) == math.inf
