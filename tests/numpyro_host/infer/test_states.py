"""Modules of flax with states, as energies and elsewhere in a model."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from flax import linen, nnx
from helpers.hosts.numpyro import latent_model, normal
from jax import random
from numpyro.contrib.module import flax_module, nnx_module
from numpyro.infer import SVI
from numpyro.infer.autoguide import AutoNormal
from numpyro.primitives import mutable

import pyro_ebm.numpyro as ebm

KEY, X = random.key(0), random.normal(random.key(1), (8, 2))


class Linen(linen.Module):
    """Layer with a state of its own kind."""

    kind: str
    num_outputs: int = 1

    @linen.compact
    def __call__(self, x):
        layer = linen.Dense(self.num_outputs)
        if "spectral" in self.kind:
            x = linen.SpectralNorm(layer)(x, update_stats="updated" in self.kind)
        else:
            x = linen.BatchNorm(use_running_average="fixed" in self.kind)(layer(x))
        return x[..., 0] if self.num_outputs == 1 else x


class NNX(nnx.Module):
    """The same of nnx."""

    norm: Any

    def __init__(self, kind):
        rngs = nnx.Rngs(0)
        self.kind, self.layer = kind, nnx.Linear(2, 1, rngs=rngs)
        if "spectral" in kind:
            self.norm = nnx.SpectralNorm(self.layer, rngs=rngs)
        elif "batch" in kind:
            self.norm = nnx.BatchNorm(1, use_running_average="fixed" in kind, rngs=rngs)
        else:
            self.norm = nnx.Dropout(0.5, deterministic="fixed" in kind, rngs=rngs)

    def __call__(self, x):
        if "spectral" in self.kind:
            return self.norm(x, update_stats="updated" in self.kind)[..., 0]
        return self.norm(self.layer(x))[..., 0]


def as_linen(kind, num_outputs=1):
    module = Linen(kind, num_outputs)
    return flax_module("net", module, input_shape=(1, 2), mutable=["batch_stats"])


def as_nnx(kind):
    return nnx_module("net", NNX(kind))


def energy_model(make):
    def model(x):
        net = make()
        return latent_model(None, lambda _: ebm.EnergyBased(net, normal()))(x)

    return model


def decoder_model(x):
    decoder = as_linen("batch", num_outputs=2)
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", ebm.EnergyBased(lambda z: (z**4).sum(-1), normal()))
        numpyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)


def counting_model(x):
    runs = mutable("runs", {"count": jnp.array(0.0)})
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", ebm.EnergyBased(lambda z: (z**4).sum(-1), normal()))
        numpyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
    runs["count"] = runs["count"] + 1 + 0 * z.sum()


def prepare(model, guide):
    loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=1.0))
    svi = SVI(model, guide, optax.adam(1e-3), loss)
    return svi, svi.init(KEY, X)


GUIDES = {"AutoNormal": AutoNormal, "LangevinGuide": partial(ebm.LangevinGuide, num_steps=2)}


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (as_linen, "batch fixed"),
        (as_linen, "spectral updated"),
        (as_nnx, "batch fixed"),
        (as_nnx, "spectral"),
        (as_nnx, "spectral updated"),
        (as_nnx, "dropout fixed"),
    ],
)
def test_energies_with_states(make, kind):
    model = energy_model(lambda: make(kind))
    assert ebm.check_model(model)(X) == []
    svi, state = prepare(model, AutoNormal(model))
    jax.eval_shape(svi.update, state, X)
    params = svi.get_params(state) | state.mutable_state
    prior = ebm.site_distribution(model, "z", params=params)(X)
    # A bound energy gives the same again, whatever its module writes.
    assert (prior.log_prob(X) == prior.log_prob(X)).all()


@pytest.mark.parametrize("make", [partial(as_linen, "batch"), partial(as_nnx, "dropout")])
def test_training_mode_is_refused(make):
    model = energy_model(make)
    (issue,) = ebm.check_model(model)(X)
    assert issue.kind == "rows"
    assert "evaluation mode" in issue.message


@pytest.mark.parametrize("guide", GUIDES)
def test_a_state_of_a_decoder(guide):
    svi, state = prepare(decoder_model, GUIDES[guide](decoder_model))
    updated, _ = jax.eval_shape(svi.update, state, X)
    assert jax.tree.structure(updated.mutable_state) == jax.tree.structure(state.mutable_state)
    if guide == "AutoNormal":
        params = svi.get_params(state) | state.mutable_state
        log_p = ebm.log_marginal(decoder_model, svi.guide, params=params, num_samples=2)
        jax.eval_shape(lambda key: log_p(key, X).estimate, KEY)


@pytest.mark.parametrize("guide", GUIDES)
def test_a_step_writes_a_state_once(guide):
    svi, state = prepare(counting_model, GUIDES[guide](counting_model))
    assert state.mutable_state["runs"]["count"] == 1
    state, _ = svi.update(state, X)
    assert state.mutable_state["runs"]["count"] == 2
    ebm.check_model(counting_model, params=state.mutable_state)(X)
    assert state.mutable_state["runs"]["count"] == 2
