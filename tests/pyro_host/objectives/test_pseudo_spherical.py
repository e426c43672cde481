import numpy as np
import pyro
import torch
from helpers.objectives.pseudo_spherical import *  # noqa: F403
from helpers.objectives.pseudo_spherical import START, gaussian
from pyro import poutine

import pyro_ebm.pyro as ebm


def test_masked_values_count_in_the_weights(host):
    """They have no gradient."""
    x, mask = np.random.default_rng(0).normal(size=6), np.arange(6) < 4
    objective = ebm.PseudoSpherical(0.5, sampler=ebm.MALA(0.1), num_steps=1)

    def prior(p):
        return ebm.EnergyBased(gaussian(host, p), pyro.distributions.Normal(0.0, 2.0))

    def model(x):
        p = {name: pyro.param(name, torch.tensor(value)) for name, value in START.items()}
        with pyro.plate("data", len(x)), poutine.mask(mask=torch.tensor(mask)):
            pyro.sample("x", prior(p), obs=x)

    expected = 6 * host.step(objective, prior, START, x, weights=mask, seed=1).gradients["mu"]
    pyro.set_rng_seed(1)
    ebm.EnergyELBO(objective).loss_and_grads(model, lambda x: None, torch.tensor(x))
    np.testing.assert_allclose(pyro.param("mu").grad, expected)
