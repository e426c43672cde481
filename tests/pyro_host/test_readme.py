import importlib
import warnings

import matplotlib
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import readme
from helpers.tutorials import FOLDER
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm.datasets import toy


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(64, 4)

    def forward(self, x):
        loc, scale = self.net(x).chunk(2, -1)
        return loc, scale.exp()


def test_the_energy_runs_away_under_a_plain_log_density(monkeypatch):
    """As in the picture, in a fifth of its steps."""
    monkeypatch.syspath_prepend(str(FOLDER))
    picture = importlib.import_module("runaway")
    monkeypatch.setattr(picture, "NUM_STEPS", 100)
    pyro.set_rng_seed(0)
    x = torch.tensor(toy("two_moons").sample(1000)).float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        energy = picture.make_energy()
        picture.train(energy, picture.plain, Trace_ELBO(), x)
    assert energy(x).mean() < -100
    energy, loss = picture.make_energy(), ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=0.1))
    gaps = picture.train(energy, picture.energy_based, loss, x)
    assert -10 < gaps[-1] < 0


def test_the_density_is_trained_and_drawn():
    matplotlib.use("agg")
    names = {}
    exec(readme.short("import pyro_ebm.pyro as ebm"), names)
    assert names["losses"][0] != names["losses"][1]
    (axes, _) = names["plt"].gcf().axes
    assert axes.get_xlabel() == "$x_1$"
    names["plt"].close()


def test_the_prior_is_trained_and_examined():
    names = {
        "decoder": nn.Linear(2, 64),
        "encoder": Encoder(),
        "energy": nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)),
        "x": torch.rand(10, 64),
    }
    names |= {"pyro": pyro, "dist": dist, "torch": torch, "ebm": ebm}
    before = names["energy"][0].weight.detach().clone()
    exec(readme.code("def guide(x):"), names)
    loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=0.1))
    SVI(names["model"], names["guide"], Adam({"lr": 0.1}), loss).step(names["x"])
    assert not torch.equal(before, names["energy"][0].weight)
    prior, log_z, chains, log_marginal, issues = readme.after_training("Pyro")
    exec(prior, names)
    log_z = eval(log_z, names)
    assert log_z.lower < log_z.estimate < log_z.upper
    assert eval(chains, names)["posterior"]["x"].shape == (4, 5, 2)
    with pytest.warns(UserWarning, match="effective"):  # after one step of training
        assert eval(log_marginal, names).estimate.shape == (10,)
    assert eval(issues, names) == []
