import math

import jax
import numpy as np
import optax
import pytest
from helpers import linear_gaussian as truth
from helpers.infer.langevin_guide import *  # noqa: F403
from helpers.infer.langevin_guide import X, best_toy, decoder_model
from jax import random
from numpyro import handlers
from numpyro.infer import SVI, Predictive, Trace_ELBO

import pyro_ebm.numpyro as ebm

KEY = random.key(0)


def test_predictive_draws_from_it(host):
    toy = best_toy(host)
    guide = ebm.LangevinGuide(toy.model, ebm.MALA(0.8))
    z = Predictive(guide, params=toy.start, num_samples=3)(KEY)["z"]
    assert z.shape == (3, truth.NUM_DATA)
    correlations = np.corrcoef(z - truth.SLOPE * toy.x) - np.eye(3)
    assert np.abs(correlations).max() < 4 / math.sqrt(truth.NUM_DATA)


def test_new_parameters_cost_no_compilation(host):
    def model(x):
        traced.append(1)
        decoder_model(host)(x)

    traced, x = [], host.array(X)
    guide = ebm.LangevinGuide(model, ebm.MALA(0.3), num_steps=2)
    svi = SVI(model, guide, optax.adam(0.1), Trace_ELBO())
    update = jax.jit(svi.update)
    state, _ = update(jax.jit(svi.init)(KEY, x), x)
    before = len(traced)
    for _ in range(3):
        state, _ = update(state, x)
    assert len(traced) == before
    assert svi.get_params(state)["weight"] != 1.0


def test_a_random_key_is_needed(host):
    with pytest.raises(ValueError, match="a random key from a seed handler, got none"):
        handlers.trace(ebm.LangevinGuide(decoder_model(host))).get_trace(host.array(X))
