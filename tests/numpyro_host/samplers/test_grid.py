import jax
import numpy as np
import numpyro
import pytest
from helpers.samplers.grid import *  # noqa: F403
from jax import random
from numpyro.infer import Predictive

import pyro_ebm.numpyro as ebm


def test_one_grid_for_all_keys():
    """`Predictive` maps over keys: the grid is no part of what is mapped."""
    sizes = []

    def energy(x):
        sizes.append(len(x))
        return 50.0 * (x - 1.0) ** 2

    def model():
        numpyro.sample("z", ebm.EnergyBased(energy, event_shape=(), sampler=ebm.Grid()))

    draws = Predictive(model, num_samples=2000, parallel=True)(random.key(0))["z"]
    assert max(sizes) <= 2049
    assert (draws.mean(), draws.std()) == (pytest.approx(1, abs=0.01), pytest.approx(0.1, rel=0.1))


def test_draws_without_a_grid_are_nan_inside_jit():
    @jax.jit
    def draw(key, scale):
        density = ebm.EnergyBased(lambda x: scale * x**2, event_shape=(), sampler=ebm.Grid())
        return density.sample(key, (5,))

    assert np.isnan(draw(random.key(0), 0.0)).all()
    assert np.isfinite(draw(random.key(0), 1.0)).all()
