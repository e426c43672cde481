"""The comparison on real tables, shortened; its pair of flows has a known density."""

import jax.numpy as jnp
import numpy as np
from density import OFFSET
from density_numpyro import Flows, flow, pair, run, surprise
from helpers.real_data import needs_tables
from jax import random


@needs_tables
def test_a_short_run_learns_density_and_log_normalizer():
    changes = {"learning_rate": 2e-3, "base_learning_rate": 1e-4, "num_base_samples": 200}
    figures = run("red wine", "KALE-F", 0, num_steps=150, gradient_penalty=0.1, **changes)
    assert figures["test"] < figures["initial"] - 1.0
    assert abs(figures["estimated"] + OFFSET) < 4 * figures["standard error"] < 0.4
    # It follows estimates of 200 draws, with 5 times the standard error of 5000: within two.
    assert abs(figures["learned"] + OFFSET) < 10 * figures["standard error"]


def test_a_pair_of_flows_has_the_density_of_one():
    flows = Flows(*(flow(key, 3) for key in random.split(random.key(0))))
    x = random.normal(random.key(1), (5, 3))
    tilted = pair(flows, log_normalizer=lambda: jnp.asarray(-OFFSET))
    np.testing.assert_allclose(tilted.log_prob(x), -surprise(flows.density, x), rtol=1e-5)
    assert float(jnp.abs(tilted.evaluate(x) - OFFSET).max()) > 0.1
