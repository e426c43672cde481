import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from flowjax.bijections import Affine, Chain, LeakyTanh
from flowjax.distributions import StandardNormal, Transformed
from flowjax.experimental.numpyro import distribution_to_numpyro, register_params
from helpers.objectives.kale import *  # noqa: F403
from helpers.objectives.kale import BOTH_FORMS
from jax import lax, random
from jax.tree_util import Partial
from numpyro.infer import SVI

import pyro_ebm.numpyro as ebm

KEY = random.key(0)


def small_flow(loc):
    bijection = Chain([LeakyTanh(1.5, (2,)), Affine(jnp.array([loc, 0.0]), jnp.array([1.0, 1.2]))])
    return Transformed(StandardNormal((2,)), bijection)


@pytest.mark.parametrize("form", BOTH_FORMS)
def test_frozen_flow(form):
    start = small_flow(0.3)

    def model(x):
        flow = register_params("flow", start)
        arrays, others = eqx.partition(flow, eqx.is_array)  # A flow holds functions too.
        flow = eqx.combine(lax.stop_gradient(arrays), others)
        energy = Partial(lambda slope, x: x @ slope, numpyro.param("slope", jnp.zeros(2)))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", ebm.EnergyBased(energy, distribution_to_numpyro(flow)), obs=x)

    def guide(x):
        if form == "fenchel":
            ebm.attach("x", log_normalizer=numpyro.param("log_normalizer", 0.0))

    loss = ebm.EnergyELBO(ebm.KALE(form=form, num_samples=20, gradient_penalty=1.0))
    svi, x = SVI(model, guide, optax.adam(0.1), loss), random.normal(KEY, (10, 2))
    state = jax.jit(svi.init)(KEY, x)
    before = svi.get_params(state)
    after = svi.get_params(jax.jit(svi.update)(state, x)[0])
    unchanged = jax.tree.map(jnp.array_equal, before["flow"], after["flow"])
    assert all(jax.tree.leaves(unchanged))
    assert len(jax.tree.leaves(unchanged)) > 1
    assert (after["slope"] != before["slope"]).all()


def test_pair_of_flows_has_a_known_log_normalizer():
    """E = log g - log d + c over g: the model is d, and A = -c."""
    base, target = (distribution_to_numpyro(small_flow(loc)) for loc in (0.0, 0.2))
    c, x = 1.7, random.normal(KEY, (5, 2))

    def energy(x):
        return base.log_prob(x) - target.log_prob(x) + c

    @jax.jit
    def results(x):
        model = ebm.EnergyBased(energy, base, log_normalizer=lambda: -c)
        prior = ebm.EnergyBased(energy, base)
        loss = ebm.KALE(num_samples=10_000).loss(KEY, prior, x).value
        partition = ebm.log_normalizer(KEY, prior, method="importance", num_samples=10_000)
        return target.log_prob(x), model.log_prob(x), loss, partition.standard_error

    expected, found, loss, error = results(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert error < 0.02
    np.testing.assert_allclose(loss, -expected, atol=4 * float(error))
