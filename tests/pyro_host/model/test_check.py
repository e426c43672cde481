import pyro
import torch
from helpers.hosts.pyro import Bowl, normal
from helpers.infer.check import *  # noqa: F403
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import nn

import pyro_ebm.pyro as ebm

X = torch.randn(6, 2)


class Child(PyroModule):
    def __init__(self):
        super().__init__()
        self.energy = Bowl()

    def forward(self, x):
        pyro.sample("z", ebm.EnergyBased(lambda z: self.energy(z), normal()))


def registered(x):
    energy = pyro.module("energy", Bowl())
    with pyro.plate("data", len(x)):
        pyro.sample("z", ebm.EnergyBased(energy, normal()))


def test_children_of_pyro_modules_are_registered():
    assert ebm.check_model(Child())(X) == []


def test_a_name_that_the_store_holds_already():
    pyro.module("energy", Bowl())
    assert is_only(ebm.check_model(registered)(X), "z", "unregistered")  # noqa: F405


def test_a_check_changes_nothing():
    # Its first layer writes to its buffers in every call.
    energy = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1), nn.Flatten(0)).train()
    pyro.param("before", torch.ones(()))
    guide = AutoNormal(registered)

    def model(x):
        pyro.module("other", energy)
        registered(x)
        with pyro.plate("more", len(x)):
            pyro.sample("y", ebm.EnergyBased(energy, normal()), obs=x)

    before = {name: tensor.clone() for name, tensor in energy.state_dict().items()}
    random_state = torch.get_rng_state()
    assert [issue.kind for issue in ebm.check_model(model, guide)(X)] == ["rows"]
    assert torch.equal(torch.get_rng_state(), random_state)
    assert list(pyro.get_param_store().keys()) == ["before"]
    assert list(guide.parameters()) == []
    assert all(torch.equal(value, before[name]) for name, value in energy.state_dict().items())
    assert all(parameter.grad is None for parameter in energy.parameters())


def test_no_chain_runs():
    calls = []

    def energy(x):
        calls.append(None)
        return x.square().sum(-1)

    ebm.check_model(lambda: pyro.sample("x", ebm.EnergyBased(energy, normal())))()
    assert len(calls) == 3  # Two of the probe.
