import numpy as np
import pytest

from pyro_ebm.core.infer.persistent_chains import PersistentChains
from pyro_ebm.core.objectives.negatives import lowest
from pyro_ebm.core.samplers.settings import MALA


class Kernel(MALA):
    def init(self, potential, position): ...

    def step(self, potential, state): ...


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, ()), {}, "`num_chains` to be an integer of at least 1, got 0"),
        ((2.5, ()), {}, "`num_chains` to be an integer of at least 1, got 2.5"),
        ((4, 2), {}, "`event_shape` to be a tuple of integers, got 2"),
        ((4, (0,)), {}, "`event_shape` to be an integer of at least 1, got 0"),
        ((4, ()), {"num_steps": 0}, "`num_steps` to be an integer of at least 1, got 0"),
        ((4, ()), {"buffer_size": 3}, "`buffer_size` to be an integer of at least 4, got 3"),
        ((4, ()), {"restart_probability": -0.1}, "number from 0 to 1, got -0.1"),
        ((4, ()), {"restart_probability": 1.1}, "number from 0 to 1, got 1.1"),
        ((4, ()), {"restart_probability": None}, "`restart_probability` .* got None"),
    ],
)
def test_wrong_settings(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        PersistentChains(*arguments, sampler=Kernel(0.1), **options)


def test_shape_of_all_chains():
    assert PersistentChains(4, (2,), sampler=Kernel(0.1)).shape == (4, 2)
    assert PersistentChains(4, (2,), sampler=Kernel(0.1), buffer_size=9).shape == (9, 2)


def test_lowest_acceptance_of_several_chains():
    assert lowest([None, np.asarray(0.3), np.asarray(0.1)]) == 0.1
    assert lowest([None]) is None
