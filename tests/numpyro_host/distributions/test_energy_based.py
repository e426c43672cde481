import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers.distributions.energy_based import *  # noqa: F403
from helpers.hosts.numpyro import normal
from jax import random, tree_util
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions.batch_util import vmap_over

import pyro_ebm.numpyro as ebm
from pyro_ebm.numpyro.distributions.energy_based import _draw

KEY = random.key(0)
X = random.normal(random.key(5), (5, 2))


def quartic_energy(x, weight=0.25):
    return weight * (x**4).reshape(x.shape[0], -1).sum(-1)


def expected(x, weight=0.25):
    return -weight * (x**4).sum(-1) + normal().log_prob(x)


def test_expand(prior):
    assert repr(prior).startswith("EnergyBased(Quartic, base=Independent")
    expanded = prior.expand((3, 5))
    assert expanded.energy is prior.energy
    with pytest.raises(ValueError, match="[Bb]roadcast|Incompatible"):
        expanded.expand((3, 4))


def test_masked_nan_stays_out_of_gradients(prior):
    x = X.at[3].set(jnp.nan)
    masked = prior.expand((5,)).mask(jnp.arange(5) < 3)
    gradient = jax.grad(lambda x: masked.log_prob(x).sum())(x)
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("compiled", [False, True])
def test_no_warning_of_derivatives_in_the_value(prior, compiled):
    def value_only(distribution, x):
        log_prob = jax.jit(distribution.log_prob) if compiled else distribution.log_prob
        return log_prob(x).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.jit(jax.grad(value_only, argnums=1))(prior, X)
        jax.jit(jax.hessian(value_only, argnums=1))(prior, X[0])
        jax.grad(lambda x: jax.lax.map(prior.log_prob, x).sum())(X)
        frozen = jax.lax.stop_gradient
        jax.grad(lambda d: value_only(frozen(d), X))(prior)


def test_dtype(float64):
    prior = ebm.EnergyBased(quartic_energy, dist.Normal(jnp.zeros(2, jnp.float64), 1.0).to_event(1))
    assert jax.eval_shape(prior.sample, KEY).dtype == jnp.float64
    assert prior.log_prob(jnp.ones(2, jnp.float64)).dtype == jnp.float64
    single = ebm.EnergyBased(
        quartic_energy, dist.Normal(jnp.zeros(2, jnp.float32), jnp.float32(1)).to_event(1)
    )
    assert jax.eval_shape(single.sample, KEY).dtype == single.base.sample(KEY).dtype
    assert single.log_prob(jnp.ones(2, jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize("key", [random.key(0), random.PRNGKey(0)], ids=["typed", "raw"])
def test_draws_have_no_gradients(key):
    def draw(a):
        return ebm.EnergyBased(lambda x: 0.5 * a * x**2, dist.Normal(a, 1.0)).sample(key)

    assert jax.grad(draw)(1.0) == 0


def test_sample_compiles_once_for_new_parameters(quartic):
    def draws(weight):
        energy = type(quartic)(jnp.array(weight))
        prior = ebm.EnergyBased(energy, dist.Normal(jnp.zeros(3), 1.0).to_event(1))
        return prior.sample(KEY, (7,))

    first = draws(0.1)
    compiled = _draw._cache_size()
    second = draws(1.0)
    assert _draw._cache_size() == compiled
    assert jnp.abs(second).mean() < jnp.abs(first).mean()


def test_values_out_of_support():
    bounded = ebm.EnergyBased(quartic_energy, dist.Uniform(0.0, 1.0))
    with pytest.warns(UserWarning, match="Out-of-support"):
        assert bounded.log_prob(jnp.array([2.0])) == -jnp.inf
    with pytest.warns(UserWarning, match="Out-of-support"):
        jax.eval_shape(lambda: bounded.log_prob(np.array([2.0])))


# --- transformations of JAX ---


def test_vmap_over_parameters(quartic):
    weights = jnp.array([0.1, 1.0, 3.0])
    priors = jax.vmap(lambda w: ebm.EnergyBased(type(quartic)(w), normal()))(weights)
    mapped = jax.vmap(lambda d, x: d.log_prob(x))(priors, X[:3])
    assert jnp.allclose(mapped, expected(X[:3], weights))
    plain = ebm.EnergyBased(type(quartic)(weights), normal())
    axes = vmap_over(plain, energy=0)
    mapped = jax.vmap(lambda d, x: d.log_prob(x), in_axes=(axes, 0))(plain, X[:3])
    assert jnp.allclose(mapped, expected(X[:3], weights))


@pytest.mark.parametrize("plate", [False, True])
def test_control_flow_scan(quartic, plate):
    weights = jnp.array([0.1, 1.0, 3.0])

    def model(x):
        def step(carry, at):
            weight, x = at
            prior = ebm.EnergyBased(type(quartic)(weight), normal())
            if plate:
                with numpyro.plate("n", 2):
                    numpyro.sample("x", prior, obs=x)
            else:
                numpyro.sample("x", prior, obs=x)
            return carry, None

        scan(step, 0.0, (weights, x))

    x = random.normal(KEY, (3, 2, 2) if plate else (3, 2))
    site = handlers.trace(handlers.seed(model, 0)).get_trace(x)["x"]
    by_step = weights[:, None] if plate else weights
    assert site["fn"].batch_shape == ((3, 2) if plate else (3,))
    assert jnp.allclose(site["fn"].log_prob(x), expected(x, by_step), rtol=1e-5)
    assert site["fn"].log_prob(jnp.stack([x, x])).shape == (2, 3, 2)[: 2 + plate]


@pytest.mark.parametrize("transform", [jax.vmap, lambda f: jax.jit(jax.vmap(f)), tree_util.Partial])
def test_names_of_transformed_energies(prior, transform):
    """Those of the module or function inside, not of JAX's wrappers."""
    for energy, name in ((quartic_energy, "quartic_energy"), (prior.energy.content, "Quartic")):
        made = ebm.EnergyBased(transform(energy), normal())
        assert repr(made).startswith(f"EnergyBased({name}, base=Independent")
