import pyro
import pyro.distributions as dist
import torch
from helpers.hosts.pyro import Bowl
from helpers.infer.posterior import *  # noqa: F403

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.model.posterior import Posterior


def test_parameters_have_their_present_values():
    energy = Bowl(1.0).double()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", ebm.EnergyBased(energy, dist.Normal(0.0, 1.0)))
            pyro.sample("x", dist.Normal(energy.weight * z, 1.0), obs=x)

    posterior, position = Posterior(model, (torch.zeros(3),)), torch.randn(3, 1)
    before = posterior.potential(position)
    energy.weight.data.fill_(2.0)
    torch.testing.assert_close(posterior.potential(position) - before, 2.5 * position[:, 0] ** 2)
