import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from helpers.objectives.pseudo_spherical import *  # noqa: F403
from helpers.objectives.pseudo_spherical import DRAWS, START, X, gaussian
from jax import random
from numpyro import handlers

import pyro_ebm.numpyro as ebm

KEY = random.key(0)


def test_masked_values_count_in_the_weights(host):
    """They have no gradient. NumPyro puts a harmless value, 0, in their place."""
    mask, chains, objective = jnp.arange(6) < 4, jnp.asarray(DRAWS), ebm.PseudoSpherical(0.5)

    def prior(p):
        return ebm.EnergyBased(gaussian(host, p), dist.Normal(0.0, 2.0))

    def model(x):
        p = {name: numpyro.param(name, value) for name, value in START.items()}
        with numpyro.plate("data", len(x)), handlers.mask(mask=mask):
            numpyro.sample("x", prior(p), obs=x)

    def guide(x):
        ebm.attach("x", chains=chains)

    elbo = ebm.EnergyELBO(objective, num_normalizer_samples=0)

    def emitted_loss(params):
        return elbo.loss(KEY, params, model, guide, X)

    def kept_loss(params):
        kept = jnp.where(mask, X, 0.0)
        return objective.loss(KEY, prior(params), kept, chains=chains).value[mask].sum()

    params = {name: jnp.asarray(value) for name, value in START.items()}
    found, expected = (jax.jit(jax.grad(loss))(params) for loss in (emitted_loss, kept_loss))
    for name in START:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-10, atol=1e-12)
