import jax.numpy as jnp
import numpy as np
from helpers.objectives.contrastive_divergence import *  # noqa: F403
from helpers.objectives.contrastive_divergence import quadratic
from jax.tree_util import Partial
from numpyro.distributions.batch_util import promote_batch_shape

import pyro_ebm.numpyro as ebm


def test_each_step_of_a_scan_has_its_own_draws(host):
    """One energy is flat, the other narrow: of shared draws neither loss would be right."""
    energies = Partial(quadratic, jnp.array([0.0, 1e4]))
    steps = promote_batch_shape(ebm.EnergyBased(energies, event_shape=()))
    objective = ebm.ContrastiveDivergence(sampler=ebm.MALA(5e-5), num_steps=30)
    loss = host.loss(objective, steps, np.zeros(2))
    # A flat energy gives zero; the draws of the narrow one have come from 1 down to 0.01.
    assert loss[0] == 0.0
    assert -100 < loss[1] < 0
