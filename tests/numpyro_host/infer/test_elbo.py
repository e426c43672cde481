import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from flax import nnx
from helpers.hosts.numpyro import empty_guide, observed_model, prior
from helpers.infer.elbo import *  # noqa: F403
from helpers.infer.elbo import PLAIN_X, X, fit, observed, plain_guide, plain_model
from jax import lax, random
from numpyro import handlers
from numpyro.contrib.module import eqx_module, nnx_module
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.primitives import mutable

import pyro_ebm.numpyro as ebm
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives.loss import Loss

DISCREPANCY = ebm.EnergyDiscrepancy(variance=1.0, num_samples=4)


def test_discrete_inference_is_that_of_the_stock_elbo(stock):
    loss = ebm.EnergyELBO(DISCREPANCY, stock())
    assert loss.can_infer_discrete == stock().can_infer_discrete


def test_mutable_state_is_stepped_once(host):
    def model(x):
        state = mutable("count", {"value": jnp.array(0.0)})
        state["value"] = state["value"] + 1
        plain_model(host)(x)

    ours, stock = (
        fit(host, model, plain_guide(host), loss, PLAIN_X, num_steps=3)
        for loss in (ebm.EnergyELBO(DISCREPANCY), Trace_ELBO())
    )
    assert ours.state.mutable_state == stock.state.mutable_state
    assert (ours.losses == stock.losses).all()


def test_nnx_energies_are_trained(host):
    net = nnx.Linear(2, 1, rngs=nnx.Rngs(0))

    def make_prior(_):
        energy = nnx_module("energy", net)
        return prior(lambda x: energy(x)[:, 0])

    model, loss = observed_model(None, make_prior), ebm.EnergyELBO(DISCREPANCY)
    assert fit(host, model, empty_guide, loss, X + 3, num_steps=40).loss_fell


def test_masked_nan_reaches_no_gradient(host):
    def model(x):
        with handlers.mask(mask=jnp.arange(8) != 3):
            observed(host)(x)

    x = X.copy()
    x[3] = jnp.nan
    result = fit(host, model, empty_guide, ebm.EnergyELBO(DISCREPANCY), x, num_steps=3)
    assert jnp.isfinite(result.losses).all()
    assert jnp.isfinite(result.params["energy.weight"])


def test_a_latent_may_transform_the_value(host):
    def model(x):
        shift = numpyro.sample("shift", dist.Normal(0.0, 1.0))
        energy = eqx_module("energy", host.Bowl())
        moved = dist.transforms.AffineTransform(shift, 1.0)
        with numpyro.plate("data", len(x)):
            fn = dist.TransformedDistribution(prior(energy).expand((len(x),)), moved)
            numpyro.sample("x", fn, obs=x)

    result = fit(host, model, AutoNormal(model), ebm.EnergyELBO(DISCREPANCY), num_steps=2)
    assert result.params["energy.weight"] != 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sum_sites": False}, "sum_sites=True, got False"),
        ({"multi_sample_guide": True}, "multi_sample_guide=False"),
    ],
)
def test_wrong_elbos(options, message):
    with pytest.raises(ValueError, match=message):
        ebm.EnergyELBO(DISCREPANCY, Trace_ELBO(**options))


# --- losses and gradients that are not finite ---


class Exploding:
    """An objective that is infinite."""

    def loss(self, rng_key, distribution, value):
        return Loss(distribution.potential(value) * jnp.inf, {})


class Kinked:
    """The root of zero has no gradient."""

    def loss(self, rng_key, distribution, value):
        energy = scaled_energy(distribution, value)
        return Loss(energy + jnp.sqrt(energy - lax.stop_gradient(energy)), {})


@pytest.fixture
def started(host):
    """Function that gives an ``SVI`` with an objective, its state, and data."""

    def start(objective):
        loss, x = ebm.EnergyELBO(objective, num_normalizer_samples=0), host.array(X)
        svi = SVI(observed(host), empty_guide, optax.sgd(0.1), loss)
        return svi, jax.jit(svi.init)(random.key(0), x), x

    return start


def test_an_infinite_loss_is_an_error_outside_of_jit(started):
    svi, state, x = started(Exploding())
    for step in (svi.update, svi.stable_update, svi.evaluate):
        with pytest.raises(ValueError, match="finite losses .* 'x', .* smaller learning rate"):
            step(state, x)


@pytest.mark.parametrize("objective", [Exploding(), Kinked()])
def test_stable_updates_keep_the_last_parameters(started, objective):
    svi, state, x = started(objective)
    state, loss = jax.jit(svi.stable_update)(state, x)
    assert jnp.isnan(loss)
    assert svi.get_params(state)["energy$params"].weight == 0.5


def test_without_validation_nothing_is_checked(started):
    svi, state, x = started(Exploding())
    with numpyro.validation_enabled(is_validate=False):
        _, loss = svi.update(state, x)
    assert jnp.isnan(loss)
