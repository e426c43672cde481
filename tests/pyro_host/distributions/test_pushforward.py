import pytest
import torch
import zuko
from helpers.distributions.pushforward import *  # noqa: F403
from helpers.distributions.pushforward import check_flow, square
from helpers.hosts.pyro import normal
from pyro.contrib.zuko import ZukoToPyro
from torch import nn

import pyro_ebm.pyro as ebm


def test_generator_with_batch_norm():
    net = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))
    pushforward = ebm.Pushforward(normal((1,)), net, event_shape=(2,))
    assert pushforward.sample((8,)).shape == (8, 2)


@pytest.fixture(scope="module")
def flow():
    torch.manual_seed(0)
    flow = zuko.flows.NSF(2, transforms=1, hidden_features=(8,))
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.5)
    return flow


@pytest.mark.parametrize("wrap", [lambda flow: flow, ZukoToPyro], ids=["zuko", "ZukoToPyro"])
def test_flow_as_a_base(host, flow, wrap):
    options = {"sampler": ebm.MALA(0.3), "num_sampler_steps": 100}
    prior = ebm.EnergyBased(square, wrap(flow()), **options)
    check_flow(host, flow(), prior, flow().transform.inv)


def test_parameters_of_a_flow(flow):
    for prior in (ebm.EnergyBased(square, flow()), ebm.EnergyBased(square, flow()).latent):
        value = torch.randn(3, 2, requires_grad=True)
        prior.log_prob(value).sum().backward()
        assert value.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in flow.parameters())
