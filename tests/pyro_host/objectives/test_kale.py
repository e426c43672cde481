import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from helpers.objectives.kale import *  # noqa: F403
from helpers.objectives.kale import BOTH_FORMS
from pyro.infer import SVI
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm

REAL = dist.constraints.real_vector


@pytest.mark.parametrize("form", BOTH_FORMS)
def test_frozen_base(form):
    """It takes no call of the energy, and stays as it is."""
    seen = []

    def energy(x):
        seen.append(tuple(x.shape))
        return x.square().sum(-1)

    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    attached = {"log_normalizer": torch.tensor(0.0)} if form == "fenchel" else {}
    objective = ebm.KALE(form=form, num_samples=7)
    loss = objective.loss(ebm.EnergyBased(energy, base), torch.randn(5, 2), **attached).value
    assert not loss.requires_grad
    assert seen == [(12, 2)]


@pytest.mark.parametrize("form", BOTH_FORMS)
def test_frozen_flow(form):
    flow = zuko.flows.MAF(2, transforms=1, hidden_features=(4,)).requires_grad_(False).eval()
    before = [parameter.clone() for parameter in flow.parameters()]
    energy = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    start = energy[0].weight.detach().clone()

    def model(x):
        pyro.module("flow", flow)
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(energy, flow(), support=REAL), obs=x)

    def guide(x):
        if form == "fenchel":
            ebm.attach("x", log_normalizer=pyro.param("log_normalizer", torch.tensor(0.0)))

    loss = ebm.EnergyELBO(ebm.KALE(form=form, num_samples=20, gradient_penalty=1.0))
    svi = SVI(model, guide, Adam({"lr": 0.1}), loss)
    for _ in range(3):
        svi.step(torch.randn(10, 2))
    assert all(map(torch.equal, flow.parameters(), before))
    assert not torch.allclose(energy[0].weight, start, atol=0.1)


def test_pair_of_flows_has_a_known_log_normalizer():
    """E = log g - log d + c over g: the model is d, and A = -c."""
    base, target = (zuko.flows.NSF(2, transforms=1, hidden_features=(4,)) for _ in range(2))
    for parameter in [*base.parameters(), *target.parameters()]:
        nn.init.normal_(parameter, std=0.1)
    c, x = 1.7, torch.randn(5, 2)

    def energy(x):
        return base().log_prob(x) - target().log_prob(x) + c

    model = ebm.EnergyBased(energy, base(), support=REAL, log_normalizer=lambda: -c)
    torch.testing.assert_close(model.log_prob(x), target().log_prob(x))
    prior = ebm.EnergyBased(energy, base(), support=REAL)
    loss = ebm.KALE(num_samples=10_000).loss(prior, x).value
    partition = ebm.log_normalizer(prior, method="importance", num_samples=10_000)
    assert partition.standard_error < 0.02
    tolerance = 4 * partition.standard_error.item()
    torch.testing.assert_close(loss, -target().log_prob(x), atol=tolerance, rtol=0)
