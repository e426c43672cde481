import pyro
import pyro.distributions as dist
import torch
from helpers.hosts.pyro import Bowl, observed_model
from helpers.objectives.f_divergence import *  # noqa: F403
from pyro.infer import SVI
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm


def test_learning_rates_by_the_name_of_the_critic():
    energy, critic = Bowl(), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    before = critic[0].weight.detach().clone()

    def prior(energy):
        return ebm.EnergyBased(energy, dist.Normal(torch.zeros(2), 2.0).to_event(1))

    def rates(name):
        return {"lr": 0.0 if name.startswith("x$critic") else 0.1}

    objective = ebm.FDivergence("kl", sampler=ebm.MALA(0.5), num_steps=5)
    loss, model = ebm.EnergyELBO(objective), observed_model(energy, prior)
    svi = SVI(model, lambda x: ebm.attach("x", critic=critic), Adam(rates), loss)
    svi.step(torch.randn(20, 2))
    assert "x$critic$$$0.weight" in pyro.get_param_store()
    torch.testing.assert_close(critic[0].weight.detach(), before, rtol=0, atol=0)
    assert energy.weight.item() != 0.5
