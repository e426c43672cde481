import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import readme
from pyro.infer import SVI
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(64, 32)

    def forward(self, x):
        loc, scale = self.net(x).chunk(2, -1)
        return loc, scale.exp()


def test_the_example_runs():
    names = {
        "decoder": nn.Linear(16, 64),
        "encoder": Encoder(),
        "energy": nn.Sequential(nn.Linear(16, 1), nn.Flatten(0)),
        "x": torch.rand(10, 64),
    }
    before = names["energy"][0].weight.detach().clone()
    exec(readme.code("import pyro_ebm.pyro as ebm"), names)
    assert not torch.equal(before, names["energy"][0].weight)
    lines = readme.code("# log Z with its standard error").splitlines()
    calls = [line.split("#")[0] for line in lines if line.startswith("ebm.")]
    log_z = eval(calls[0], names)
    assert log_z.lower < log_z.estimate < log_z.upper
    idata = eval(calls[1].replace("num_warmup", "num_samples=5, num_warmup"), names)
    assert idata["posterior"]["x"].shape == (4, 5, 16)
    with pytest.warns(UserWarning, match="effective"):  # after one step of training
        assert eval(calls[2], names).estimate.shape == (10,)
    assert eval(calls[3], names) == []


def test_learners_are_declared_as_it_says():
    energy, critic = (nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)) for _ in range(2))
    names = {"ebm": ebm, "critic": critic}
    exec(readme.code("PersistentChains(num_chains=128"), names)

    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
            pyro.sample("x", ebm.EnergyBased(energy, base), obs=x)

    before = critic[0].weight.detach().clone()
    SVI(model, names["guide"], Adam({"lr": 0.1}), names["loss"]).step(torch.randn(10, 2))
    assert not torch.equal(before, critic[0].weight)


def test_a_generator_is_trained_as_it_says():
    energy = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    names = {"ebm": ebm, "dist": dist, "pyro": pyro, "torch": torch}
    names |= {"energy": energy, "generator": nn.Linear(1, 2)}
    exec(readme.code("base = ebm.Pushforward(latent, generator)"), names)
    before = [net.weight.detach().clone() for net in (energy[0], names["generator"])]
    svi = SVI(names["model"], lambda x: None, Adam({"lr": 0.1}), names["loss"])
    svi.step(torch.randn(10, 2))
    after = energy[0].weight, names["generator"].weight
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_bounds_are_trained_as_they_say():
    energy, generator = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)), nn.Linear(2, 2)

    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
            pyro.sample("x", ebm.EnergyBased(energy, base), obs=x)

    names = {"ebm": ebm, "dist": dist, "torch": torch, "SVI": SVI, "Adam": Adam}
    names |= {"model": model, "generator": generator}
    exec(readme.code("ebm.BidirectionalBounds()"), names)
    before = [net.weight.detach().clone() for net in (energy[0], generator)]
    names["svi"].step(torch.randn(10, 2))
    after = energy[0].weight, generator.weight
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_a_conditional_energy_is_trained():
    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 1)

        def forward(self, x, c):
            return self.net(torch.cat([x, c], -1))[:, 0]

    names = {"ebm": ebm, "dist": dist, "pyro": pyro, "torch": torch, "energy": Conditional()}
    exec(readme.code("context=c"), names)
    before = names["energy"].net.weight.detach().clone()
    c, y = torch.randn(10, 2), torch.randn(10, 1)
    loss = ebm.EnergyELBO(ebm.MaximumLikelihood(num_samples=10))
    SVI(names["model"], lambda c, y: None, Adam({"lr": 0.1}), loss).step(c, y)
    assert not torch.equal(before, names["energy"].net.weight)
    assert ebm.site_distribution(names["model"], "y")(c, y).batch_shape == (10,)


def test_a_table_is_trained():
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 1)

        def forward(self, x):
            return self.net(x)[:, 0]

    codes = torch.randint(5, (50,)), torch.randint(12, (50,))
    table = torch.stack([torch.randn(50), *codes], -1)
    names = {"ebm": ebm, "pyro": pyro, "energy": First(), "table": table}
    exec(readme.code("ColumnMarginals.fit"), names)
    before = names["energy"].net.weight.detach().clone()
    SVI(names["model"], lambda x: None, Adam({"lr": 0.1}), names["loss"]).step(table)
    assert not torch.equal(before, names["energy"].net.weight)
