"""A prior of the digits' decoder that is trained between bounds, shortened."""

import bounds_digits as settings
import equinox as eqx
import jax.numpy as jnp
from bounds_digits_numpyro import train, untrained_flow
from generalized_digits import PRIORS
from generalized_digits_numpyro import networks_of
from jax import random
from paramax import unwrap

from pyro_ebm.datasets import digits

KEY = random.key(0)


def test_every_network_learns(monkeypatch):
    # Without a penalty, whose second derivatives take long to compile.
    monkeypatch.setattr(settings, "OBJECTIVE", {"penalty_weight": 0.0})
    monkeypatch.setattr(settings, "NUM_LAYERS", 1)
    images, z = jnp.asarray(digits().validation.images), random.normal(KEY, (3, 16))
    networks, flow = networks_of(KEY, PRIORS["tilted normal"]), untrained_flow(KEY)

    def outputs(networks, flow):
        return [networks.encoder(images), networks.energy(z), networks.decoder(z), flow.log_prob(z)]

    trained, generator = train(KEY, networks, flow, images, num_steps=30)
    after = outputs(trained, unwrap(eqx.combine(generator, flow)))
    for old, new in zip(outputs(networks, flow), after, strict=True):
        assert jnp.isfinite(new).all()
        assert (old != new).all()
