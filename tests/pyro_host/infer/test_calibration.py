import pyro
import pyro.distributions as dist
import torch
from helpers.calibration import BASE_SCALE, NUM_DRAWS, p_values, truths_and_data, two_wells
from pyro.infer import MCMC

import pyro_ebm.pyro as ebm


def posterior_draws(data, strength):
    """Draws for all data sets, under a prior whose energy is `strength` times the true one.

    The latent variable of each data set has independent copies, so that one state of one chain
    is many independent draws.
    """

    def model(x):
        with pyro.plate("copies", NUM_DRAWS, dim=-2), pyro.plate("data_sets", len(x)):
            base = dist.Normal(0.0, BASE_SCALE)
            z = pyro.sample("z", ebm.EnergyBased(lambda z: strength * two_wells(z), base))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    kernel = ebm.SamplerKernel(model, ebm.HMC(0.1, num_steps=6))
    mcmc = MCMC(kernel, num_samples=60, warmup_steps=100, disable_progbar=True)
    mcmc.run(torch.tensor(data, dtype=torch.float32))
    return mcmc.get_samples()["z"][-1].numpy()


def test_posteriors_under_energy_priors_are_calibrated():
    truths, data = truths_and_data()
    assert min(p_values(truths, posterior_draws(data, strength=1.0))) > 1e-3
    assert min(p_values(truths, posterior_draws(data, strength=0.0))) < 1e-6
