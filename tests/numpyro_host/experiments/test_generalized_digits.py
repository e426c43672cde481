"""Generalized energy-based priors of the digits' decoder, shortened."""

import generalized_digits as settings
import jax.numpy as jnp
import numpy as np
import pytest
from generalized_digits_numpyro import look_at, networks_of, train
from jax import random

from pyro_ebm.datasets import digits

KEY = random.key(0)


@pytest.fixture
def images():
    return jnp.asarray(digits().validation.images)


def test_every_network_learns(images, monkeypatch):
    # Without a penalty, whose second derivatives take long to compile.
    monkeypatch.setattr(settings, "OBJECTIVE", {"num_base_samples": 20})

    def outputs(networks):
        z = random.normal(KEY, (3, 16))
        parts = networks.encoder(images), networks.flow.log_prob(z), networks.energy(z)
        return [*parts, networks.decoder(z)]

    networks = networks_of(KEY, settings.PRIORS["tilted flow"])
    trained = train(KEY, networks, images, num_steps=30)
    for before, after in zip(outputs(networks), outputs(trained), strict=True):
        assert jnp.isfinite(after).all()
        assert (before != after).all()


def test_a_constant_energy_changes_no_score(images, monkeypatch):
    monkeypatch.setattr(settings, "NUM_IMPORTANCE", 5)
    flow = networks_of(KEY, settings.PRIORS["flow"])
    tilted = flow._replace(energy=lambda z: jnp.full(z.shape[:1], 2.0))
    expected = look_at(KEY, flow, images)["scores"]
    found = look_at(KEY, tilted, images, method="importance")
    assert found["log_z"] == pytest.approx(-2.0)
    np.testing.assert_allclose(found["scores"], expected, rtol=1e-5)
