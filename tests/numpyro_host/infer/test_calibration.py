import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from helpers.calibration import BASE_SCALE, NUM_DRAWS, p_values, truths_and_data, two_wells
from jax import random
from numpyro.infer import MCMC

import pyro_ebm.numpyro as ebm


def posterior_draws(data, strength):
    """Draws for all data sets, under a prior whose energy is `strength` times the true one.

    The latent variable of each data set has independent copies, so that one state of one chain
    is many independent draws.
    """

    def model(x):
        with numpyro.plate("copies", NUM_DRAWS, dim=-2), numpyro.plate("data_sets", len(x)):
            base = dist.Normal(0.0, BASE_SCALE)
            z = numpyro.sample("z", ebm.EnergyBased(lambda z: strength * two_wells(z), base))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    kernel = ebm.SamplerKernel(model, ebm.HMC(0.1, num_steps=6))
    mcmc = MCMC(kernel, num_warmup=100, num_samples=60, progress_bar=False)
    mcmc.run(random.key(0), jnp.asarray(data, jnp.float32))
    return np.asarray(mcmc.get_samples()["z"][-1])


def test_posteriors_under_energy_priors_are_calibrated():
    truths, data = truths_and_data()
    assert min(p_values(truths, posterior_draws(data, strength=1.0))) > 1e-3
    assert min(p_values(truths, posterior_draws(data, strength=0.0))) < 1e-6
