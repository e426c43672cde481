import jax
import jax.numpy as jnp
import numpy as np
from helpers.infer.persistent_chains import *  # noqa: F403
from helpers.infer.persistent_chains import X, latent_guide, training, walking
from jax import random
from numpyro.handlers import scope
from numpyro.infer import Trace_ELBO
from numpyro.primitives import mutable


def test_a_progress_bar_makes_no_difference(host):
    model, x = host.latent_model(host.Bowl()), host.array(X)
    svi = training(host, model, latent_guide(host), Trace_ELBO(4)).svi
    with jax.checking_leaks():
        scanned = svi.run(random.key(0), 3, x, progress_bar=False)
    bar = svi.run(random.key(0), 3, x, progress_bar=True, stable_update=True)
    np.testing.assert_allclose(scanned.losses, bar.losses, rtol=1e-5)
    ends = (result.state.mutable_state["z$chains"] for result in (scanned, bar))
    np.testing.assert_allclose(*ends, rtol=1e-4)


def test_other_mutable_sites_are_left_to_the_stock_elbo(host):
    latent_model = host.latent_model(host.Bowl())

    def model(x):
        count = mutable("count", {"value": jnp.array(0.0)})
        count["value"] = count["value"] + 1
        latent_model(x)

    run = training(host, model, latent_guide(host))
    run.step(X)
    before = run.state.mutable_state
    run.step(X)
    after = run.state.mutable_state
    assert after["count"]["value"] == before["count"]["value"] + 1
    np.testing.assert_allclose(after["z$chains"], before["z$chains"] + 1, rtol=1e-5)


def test_chains_attached_in_a_scope_continue(host):
    observed = scope(host.observed_model(host.Bowl()), prefix="s", hide_types=["param"])
    guide = scope(host.attaching("s/x", chains=walking(host)), prefix="s")
    run = training(host, observed, guide)
    run.step(X)
    (before,) = run.state.mutable_state.values()
    run.step(X)
    (after,) = run.state.mutable_state.values()
    np.testing.assert_allclose(after, before + 1, rtol=1e-5)
