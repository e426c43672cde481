"""A prior of the digits' decoder that is trained between bounds, shortened."""

import bounds_digits as settings
import pyro
import torch
from bounds_digits_pyro import train, untrained_flow
from generalized_digits import PRIORS
from generalized_digits_pyro import networks_of

from pyro_ebm.datasets import digits


def test_every_network_learns(monkeypatch):
    monkeypatch.setattr(settings, "NUM_LAYERS", 2)
    pyro.set_rng_seed(0)
    images, z = torch.from_numpy(digits().validation.images), torch.randn(3, 16)
    networks, flow = networks_of(PRIORS["tilted normal"]), untrained_flow()

    @torch.no_grad()
    def outputs():
        return [networks.encoder(images), networks.energy(z), networks.decoder(z), flow()(z)]

    before = outputs()
    train(networks, flow, images, num_steps=30)
    for old, new in zip(before, outputs(), strict=True):
        assert new.isfinite().all()
        assert (old != new).all()
