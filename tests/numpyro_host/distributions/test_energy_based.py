import copy
import math
import warnings

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from helpers.hosts.numpyro import Bowl, normal
from helpers.oracles import LOG_NORMALIZER_QUARTIC
from jax import random
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from numpyro.distributions.batch_util import vmap_over

import pyro_ebm.numpyro as ebm
from pyro_ebm.numpyro.distributions.energy_based import (
    _sample,
    importance_log_weights,
    without_plates,
)

KEY = random.key(0)
X = random.normal(random.key(5), (5, 2))


def quartic_energy(x, weight=0.25):
    return weight * (x**4).reshape(x.shape[0], -1).sum(-1)


def expected(x, weight=0.25):
    return -weight * (x**4).sum(-1) + normal().log_prob(x)


def test_log_prob(prior):
    assert prior.batch_shape == ()
    assert prior.event_shape == (2,)
    assert jnp.allclose(prior.log_prob(X), expected(X))
    assert jnp.allclose(prior.potential(X), -expected(X))
    assert repr(prior).startswith("EnergyBased(Quartic, base=Independent")
    assert jnp.allclose(copy.deepcopy(prior).log_prob(X), prior.log_prob(X))


def test_no_base():
    distribution = ebm.EnergyBased(quartic_energy, event_shape=(2,))
    assert distribution.support == constraints.independent(constraints.real, 1)
    assert ebm.EnergyBased(quartic_energy, event_shape=()).support is constraints.real
    assert jnp.allclose(distribution.log_prob(X), -0.25 * (X**4).sum(-1))


def test_expand_mask_to_event(prior):
    expanded = prior.expand((3, 5))
    assert expanded.batch_shape == (3, 5)
    assert expanded.energy is prior.energy
    assert expanded.log_prob(X).shape == (3, 5)
    assert expanded.sample(KEY, (4,)).shape == (4, 3, 5, 2)
    assert expanded.to_event(1).log_prob(X).shape == (3,)
    assert expanded.to_event(1).event_shape == (5, 2)
    with pytest.raises(ValueError, match="[Bb]roadcast|Incompatible"):
        expanded.expand((3, 4))
    mask = jnp.arange(5) < 2
    masked = prior.expand((5,)).mask(mask)
    assert jnp.allclose(masked.log_prob(X), jnp.where(mask, expected(X), 0.0))


def test_masked_nan_stays_out_of_gradients(prior):
    x = X.at[3].set(jnp.nan)
    masked = prior.expand((5,)).mask(jnp.arange(5) < 3)
    gradient = jax.grad(lambda x: masked.log_prob(x).sum())(x)
    assert jnp.isfinite(gradient).all()


def test_settings_of_derived_distributions():
    base = ebm.Pushforward(normal((1,)), jnp.sin)
    options = {"sampler": ebm.MALA(0.1), "num_sampler_steps": 7, "inverse_temperature": 2.0}
    plain = ebm.EnergyBased(Bowl(), base, **options)
    expanded = plain.expand((4,))
    derived = expanded, expanded.latent, without_plates(expanded), jax.tree.map(lambda x: x, plain)
    for distribution in derived:
        assert {name: getattr(distribution, name) for name in options} == options
    assert expanded.latent.batch_shape == (4,)
    assert without_plates(expanded).batch_shape == ()


def test_batch_of_bases():
    means = jnp.array([-1.0, 0.0, 2.0])
    distribution = ebm.EnergyBased(quartic_energy, dist.Normal(means, 1.0))
    x = jnp.array([0.5, 1.0, -1.0])
    assert distribution.batch_shape == (3,)
    assert jnp.allclose(
        distribution.log_prob(x), -0.25 * x**4 + dist.Normal(means, 1.0).log_prob(x)
    )


def test_gradients_of_log_prob_and_potential(prior):
    def evaluate(method, energy, mean, x):
        distribution = ebm.EnergyBased(energy, dist.Normal(mean, 1.0).to_event(1))
        return getattr(distribution, method)(x).sum()

    arguments = prior.energy.content, jnp.zeros(2), X
    with pytest.warns(UserWarning, match="Nothing trains"):
        frozen = jax.grad(evaluate, argnums=(1, 2, 3))("log_prob", *arguments)
    full = jax.grad(evaluate, argnums=(1, 2, 3))("potential", *arguments)
    assert frozen[0].weight == 0
    assert (frozen[1] == 0).all()
    assert jnp.allclose(frozen[2], -full[2])
    assert jnp.isclose(full[0].weight, (X**4).sum(), rtol=1e-4)
    assert jnp.allclose(full[1], -X.sum(0), atol=1e-5)


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


def test_known_log_normalizer():
    def log_prob(a, x):
        return ebm.EnergyBased(
            lambda x: 0.5 * a * x**2,
            event_shape=(),
            log_normalizer=lambda: 0.5 * jnp.log(2 * jnp.pi / a),
        ).log_prob(x)

    x, a = jnp.array(0.7), jnp.array(2.0)
    assert jnp.isclose(log_prob(a, x), dist.Normal(0.0, a**-0.5).log_prob(x))
    exact = jax.grad(lambda a: dist.Normal(0.0, a**-0.5).log_prob(x))(a)
    assert jnp.isclose(jax.grad(log_prob)(a, x), exact, rtol=1e-5)


def test_importance_log_weights():
    prior = ebm.EnergyBased(lambda x: x**4 / 4, dist.Normal(0.0, 1.0))
    weights = jnp.exp(importance_log_weights(KEY, prior, 20_000))
    error = 4 * float(weights.std()) / math.sqrt(20_000)
    assert float(weights.mean()) == pytest.approx(math.exp(LOG_NORMALIZER_QUARTIC), abs=error)
    with pytest.raises(NotImplementedError, match="a base to draw from, got base=None"):
        importance_log_weights(KEY, ebm.EnergyBased(quartic_energy, event_shape=()), 3)


def test_dtype(float64):
    prior = ebm.EnergyBased(quartic_energy, dist.Normal(jnp.zeros(2, jnp.float64), 1.0).to_event(1))
    assert prior.sample(KEY).dtype == jnp.float64
    assert prior.log_prob(jnp.ones(2, jnp.float64)).dtype == jnp.float64
    single = ebm.EnergyBased(
        quartic_energy, dist.Normal(jnp.zeros(2, jnp.float32), jnp.float32(1)).to_event(1)
    )
    assert single.sample(KEY).dtype == single.base.sample(KEY).dtype
    assert single.log_prob(jnp.ones(2, jnp.float32)).dtype == jnp.float32


# --- draws ---


@pytest.mark.parametrize("key", [random.key(0), random.PRNGKey(0)], ids=["typed", "raw"])
def test_default_sampler(key):
    prior = ebm.EnergyBased(lambda x: 0.5 * x**2, dist.Normal(1.0, 1.0))
    draws = prior.sample(key, (20000,))
    # exp(-x^2/2) N(x; 1, 1) is N(1/2, 1/2); Langevin of step 0.05 widens it to 1/2 / (1 - 0.05).
    assert abs(draws.mean() - 0.5) < 0.02
    assert abs(draws.var() - 0.5 / 0.95) < 0.02

    def through(a):
        return ebm.EnergyBased(lambda x: 0.5 * a * x**2, dist.Normal(a, 1.0)).sample(key)

    assert jax.grad(through)(1.0) == 0


def test_number_of_steps():
    prior = ebm.EnergyBased(
        lambda x: 0.5 * x**2,
        dist.Normal(100.0, 0.1),
        sampler=ebm.Langevin(1e-6),
        num_sampler_steps=1,
    )
    assert abs(prior.sample(KEY) - 100.0) < 1.0


def test_constrained_draws():
    draws = ebm.EnergyBased(lambda x: 2 * x, dist.Exponential(1.0)).sample(KEY, (4000,))
    assert (draws > 0).all()
    assert abs(draws.mean() - 1 / 3) < 0.03
    flat = ebm.EnergyBased(lambda x: 3 * x, event_shape=(), support=constraints.positive)
    assert abs(flat.sample(random.key(1), (4000,)).mean() - 1 / 3) < 0.03


def test_sample_compiles_once_for_new_parameters(quartic):
    def draws(weight):
        energy = type(quartic)(jnp.array(weight))
        prior = ebm.EnergyBased(energy, dist.Normal(jnp.zeros(3), 1.0).to_event(1))
        return prior.sample(KEY, (7,))

    first = draws(0.1)
    compiled = _sample._cache_size()
    second = draws(1.0)
    assert _sample._cache_size() == compiled
    assert jnp.abs(second).mean() < jnp.abs(first).mean()


# --- errors ---


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"energy": 3.0, "event_shape": (2,)}, TypeError, "`energy` to be callable, got float"),
        ({"base": 3.0}, TypeError, "`base` to be a distribution, got float"),
        ({"event_shape": (2,), "sampler": ebm.MALA}, TypeError, "got the class MALA"),
        ({"event_shape": (2,), "num_sampler_steps": 0}, ValueError, "`num_sampler_steps` to be"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ebm.EnergyBased(**{"energy": quartic_energy} | arguments)


def test_nan_and_values_out_of_support():
    with pytest.raises(ValueError, match="give numbers, got NaN"):
        ebm.EnergyBased(lambda x: x * jnp.nan, event_shape=(), validate_args=True).log_prob(1.0)
    steep = ebm.EnergyBased(lambda x: 1e3 * x**4, dist.Normal(0.0, 1.0), validate_args=True)
    with pytest.raises(ValueError, match="finite draws, got NaN or infinity"):
        steep.sample(KEY, (10,))
    bounded = ebm.EnergyBased(quartic_energy, dist.Uniform(0.0, 1.0))
    with pytest.warns(UserWarning, match="Out-of-support"):
        assert bounded.log_prob(jnp.array([2.0])) == -jnp.inf


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
