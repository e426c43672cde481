import jax.numpy as jnp
import pytest
from helpers.objectives.energy_discrepancy import *  # noqa: F403
from jax import random

import pyro_ebm.numpyro as ebm


def test_perturbed_copies_share_one_hop():
    kernel, x = ebm.GaussianPerturbation(0.25), jnp.zeros((20000, 1))
    copies = kernel.backward(random.key(1), kernel.forward(random.key(0), x), 2)
    assert copies.shape == (2, 20000, 1)
    assert copies.var() == pytest.approx(0.5, rel=0.03)
    assert (copies[0] * copies[1]).mean() == pytest.approx(0.25, rel=0.05)
