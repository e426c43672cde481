import pytest
import torch
from helpers.hosts.pyro import prior
from helpers.infer.probe import *  # noqa: F403
from torch import nn


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(8), nn.Dropout(0.3)])
def test_layers_in_training_mode_are_refused(layer):
    energy = nn.Sequential(nn.Linear(2, 8), layer, nn.SiLU(), nn.Linear(8, 1), nn.Flatten(0))
    statistics = {name: buffer.clone() for name, buffer in energy.named_buffers()}
    x = torch.randn(20, 2)
    with pytest.raises(ValueError, match=r"the same number again.*evaluation mode \(`.eval\(\)`\)"):
        prior(energy.train())._check_rows(x)
    for name, buffer in energy.named_buffers():
        assert torch.equal(buffer, statistics[name])
    prior(energy.eval())._check_rows(x)
