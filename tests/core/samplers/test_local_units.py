from types import SimpleNamespace

import numpy as np
import pytest

from pyro_ebm.core.samplers.dynamics import ChainState
from pyro_ebm.core.samplers.local_units import in_local_units, local_scale
from pyro_ebm.core.samplers.settings import MALA, Langevin

rng = np.random.default_rng(0)


@pytest.mark.parametrize("usable", [True, False])
def test_local_scale(usable):
    bad = np.array([0.0, np.inf, np.nan])
    found = local_scale(np.full(3, 9.0), np.full(3, 4.0) if usable else bad, np.array([7.0]))
    np.testing.assert_array_equal(found, 1.5 if usable else 7.0)


def pilots(dtype):
    """Chains on a normal law of scales .1 and 10, two of them outside of its support."""
    position, scales = rng.normal(size=(1000, 2)) * [0.1, 10.0], np.array([0.1, 10.0])
    potential = np.where(np.arange(1000) < 2, np.inf, 0.5 * ((position / scales) ** 2).sum(-1))
    gradient = np.where(potential[:, None] < np.inf, position / scales**2, np.nan)
    arrays = (x.astype(dtype) for x in (position, potential, 100 * gradient))
    return ChainState(*arrays, None, np.ones(()), np.ones(()), 0)


@pytest.mark.parametrize("has_gradients", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_local_units(has_gradients, dtype):
    state = pilots(dtype) if has_gradients else pilots(dtype)._replace(gradient=None)
    found = in_local_units(MALA(), state)
    assert found.scale.dtype == dtype
    factor = 0.1 if has_gradients else 1.0  # Gradients are a hundred times those of its law.
    np.testing.assert_allclose(found.scale, np.array([0.1, 10.0]) * factor, rtol=0.1)
    for kernel in (
        Langevin(0.1),
        MALA(adapt_mass_matrix=False),
        MALA(0.1, target_accept_prob=None),
    ):
        assert in_local_units(kernel, state) is state
    levels = SimpleNamespace(target_accept_prob=0.6, adapt_mass_matrix=True, temperatures=(4, 1))
    assert in_local_units(levels, state) is state
