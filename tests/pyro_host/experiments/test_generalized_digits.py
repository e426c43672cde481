"""Generalized energy-based priors of the digits' decoder, shortened."""

import generalized_digits as settings
import numpy as np
import pyro
import pytest
import torch
from generalized_digits_pyro import look_at, networks_of, train

from pyro_ebm.datasets import digits


@pytest.fixture
def images():
    return torch.from_numpy(digits().validation.images)


def test_every_network_learns(images):
    @torch.no_grad()
    def outputs(networks):
        parts = networks.encoder(images), networks.flow().log_prob(z), networks.energy(z)
        return [*parts, networks.decoder(z)]

    z = torch.randn(3, 16)
    networks = networks_of(settings.PRIORS["tilted flow"])
    before = outputs(networks)
    train(networks, images, num_steps=30)
    for old, new in zip(before, outputs(networks), strict=True):
        assert new.isfinite().all()
        assert (old != new).all()


def test_a_constant_energy_changes_no_score(images, monkeypatch):
    monkeypatch.setattr(settings, "NUM_IMPORTANCE", 5)
    flow = networks_of(settings.PRIORS["flow"])
    tilted = flow._replace(energy=lambda z: torch.full(z.shape[:1], 2.0))
    pyro.set_rng_seed(1)
    expected = look_at(flow, images)["scores"]
    pyro.set_rng_seed(1)
    found = look_at(tilted, images, method="importance")
    assert found["log_z"] == pytest.approx(-2.0)
    np.testing.assert_allclose(found["scores"], expected, rtol=1e-5)
