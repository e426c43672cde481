import readme
import torch
from torch import nn


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
    assert exec(lines[0], names) is None
    idata = eval(lines[1].split("#")[0].replace("prior())", "prior(), num_samples=5)"), names)
    assert idata["posterior"]["x"].shape == (4, 5, 16)
