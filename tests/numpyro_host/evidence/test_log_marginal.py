import math

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from helpers.compilations import counted_compilations
from helpers.evidence.log_marginal import *  # noqa: F403
from jax import random
from numpyro import handlers, infer
from numpyro.infer.autoguide import AutoBNAFNormal

import pyro_ebm.numpyro as ebm


def conjugate_model(x):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def conjugate_guide(x):
    numpyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))


def test_inside_jit_and_new_data_compile_nothing_again():
    log_marginal = ebm.log_marginal(conjugate_model, conjugate_guide, num_samples=20)
    for function in (log_marginal, jax.jit(log_marginal)):
        for x in jnp.array([0.3, 1.2]):
            with counted_compilations() as compiled:
                result = function(random.key(0), x)
            exact = dist.Normal(0.0, math.sqrt(2)).log_prob(x)
            assert abs(result.estimate - exact) < 1e-5
        assert not compiled


@pytest.mark.parametrize("method", ["importance", "annealed"])
def test_a_key_of_their_own_is_refused(method):
    seeded = [handlers.seed(function, 0) for function in (conjugate_model, conjugate_guide)]
    with pytest.raises(ValueError, match="without a random key of its own, got one in a seed"):
        ebm.log_marginal(*seeded, method=method)(random.key(0), jnp.ones(()))


def test_a_guide_without_an_inverse():
    def model(x):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        numpyro.sample("x", dist.Normal(z.sum(), 1.0), obs=x)

    guide = AutoBNAFNormal(model, num_flows=1, hidden_factors=[2])
    x = jnp.array(0.3)
    svi = infer.SVI(model, guide, optax.adam(0.1), infer.Trace_ELBO(num_particles=64))
    params = svi.run(random.key(0), 100, x, progress_bar=False).params
    log_marginal = ebm.log_marginal(model, guide, num_samples=10_000, params=params)
    found = log_marginal(random.key(1), x)
    exact = dist.Normal(0.0, math.sqrt(3)).log_prob(x)
    assert found.effective_sample_size > 100
    assert abs(found.estimate - exact) < 4 * found.standard_error
