import copy
import warnings

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from numpyro.distributions.batch_util import vmap_over

import pyro_ebm.numpyro as ebm
from pyro_ebm.numpyro.distributions.energy_based import _sample
from pyro_ebm.numpyro.infer.energy_sites import find_energy, map_energy

X = random.normal(random.key(5), (5, 2))


def quartic(x, weight=0.25):
    return weight * (x**4).reshape(x.shape[0], -1).sum(-1)


def base():
    return dist.Normal(jnp.zeros(2), 1.0).to_event(1)


def expected(x, weight=0.25):
    return -weight * (x**4).sum(-1) + base().log_prob(x)


def test_log_prob_is_base_minus_energy(prior):
    assert prior.batch_shape == ()
    assert prior.event_shape == (2,)
    assert jnp.allclose(prior.log_prob(X), expected(X))
    assert jnp.allclose(prior.potential(X), -expected(X))
    assert repr(prior).startswith("EnergyBased(Quartic, base=Independent")


def test_without_a_base():
    distribution = ebm.EnergyBased(quartic, event_shape=(2,))
    assert distribution.support == constraints.independent(constraints.real, 1)
    assert ebm.EnergyBased(quartic, event_shape=()).support is constraints.real
    assert jnp.allclose(distribution.log_prob(X), -0.25 * (X**4).sum(-1))


def test_wrappers_give_the_shapes_of_the_host(prior):
    expanded = prior.expand((3, 5))
    assert expanded.batch_shape == (3, 5)
    assert expanded.energy is prior.energy
    assert expanded.log_prob(X).shape == (3, 5)
    assert expanded.sample(random.key(0), (4,)).shape == (4, 3, 5, 2)
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


def test_batch_of_bases():
    means = jnp.array([-1.0, 0.0, 2.0])
    distribution = ebm.EnergyBased(quartic, dist.Normal(means, 1.0))
    x = jnp.array([0.5, 1.0, -1.0])
    assert distribution.batch_shape == (3,)
    assert jnp.allclose(
        distribution.log_prob(x), -0.25 * x**4 + dist.Normal(means, 1.0).log_prob(x)
    )


def test_gradients_of_log_prob_and_potential(prior):
    def log_prob(energy, mean, x):
        return ebm.EnergyBased(energy, dist.Normal(mean, 1.0).to_event(1)).log_prob(x).sum()

    def potential(energy, mean, x):
        return ebm.EnergyBased(energy, dist.Normal(mean, 1.0).to_event(1)).potential(x).sum()

    energy = prior.energy.content
    with pytest.warns(UserWarning, match="Nothing trains"):
        score = jax.grad(log_prob, argnums=(0, 1, 2))(energy, jnp.zeros(2), X)
    full = jax.grad(potential, argnums=(0, 1, 2))(energy, jnp.zeros(2), X)
    assert score[0].weight == 0
    assert (score[1] == 0).all()
    assert jnp.allclose(score[2], -full[2])
    assert jnp.isclose(full[0].weight, (X**4).sum(), rtol=1e-4)
    assert jnp.allclose(full[1], -X.sum(0), atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_derivatives_in_the_value_alone_warn_of_nothing(prior, compiled):
    def value_only(distribution, x):
        score = jax.jit(distribution.log_prob) if compiled else distribution.log_prob
        return score(x).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.jit(jax.grad(value_only, argnums=1))(prior, X)
        jax.jit(jax.hessian(value_only, argnums=1))(prior, X[0])
        jax.grad(lambda x: jax.lax.map(prior.log_prob, x).sum())(X)
        frozen = jax.lax.stop_gradient
        jax.grad(lambda d: value_only(frozen(d), X))(prior)


def test_known_normalizer_gives_an_exact_density():
    def log_prob(a, x):
        distribution = ebm.EnergyBased(
            lambda x: 0.5 * a * x**2,
            event_shape=(),
            log_normalizer=lambda: 0.5 * jnp.log(2 * jnp.pi / a),
        )
        return distribution.log_prob(x)

    x, a = jnp.array(0.7), jnp.array(2.0)
    assert jnp.isclose(log_prob(a, x), dist.Normal(0.0, a**-0.5).log_prob(x))
    exact = jax.grad(lambda a: dist.Normal(0.0, a**-0.5).log_prob(x))(a)
    assert jnp.isclose(jax.grad(log_prob)(a, x), exact, rtol=1e-5)


def test_constrained_supports():
    gamma = ebm.EnergyBased(lambda x: 2 * x, dist.Exponential(1.0))
    draws = gamma.sample(random.key(0), (4000,))
    assert (draws > 0).all()
    assert abs(draws.mean() - 1 / 3) < 0.03
    flat = ebm.EnergyBased(lambda x: 3 * x, event_shape=(), support=constraints.positive)
    assert abs(flat.sample(random.key(1), (4000,)).mean() - 1 / 3) < 0.03
    with pytest.warns(UserWarning, match="Out-of-support"):
        assert (
            ebm.EnergyBased(quartic, dist.Uniform(0.0, 1.0)).log_prob(jnp.array([2.0])) == -jnp.inf
        )


@pytest.mark.parametrize("key", [random.key(0), random.PRNGKey(0)], ids=["typed", "raw"])
def test_sample_is_detached_and_follows_the_density(key):
    prior = ebm.EnergyBased(lambda x: 0.5 * x**2, dist.Normal(1.0, 1.0))
    draws = prior.sample(key, (20000,))
    # exp(-x^2/2) N(x; 1, 1) is N(1/2, 1/2); Langevin of step 0.05 widens it to 1/2 / (1 - 0.05).
    assert abs(draws.mean() - 0.5) < 0.02
    assert abs(draws.var() - 0.5 / 0.95) < 0.02

    def through(a):
        return ebm.EnergyBased(lambda x: 0.5 * a * x**2, dist.Normal(a, 1.0)).sample(key)

    assert jax.grad(through)(1.0) == 0


def test_sampler_of_choice_runs():
    far = ebm.EnergyBased(
        lambda x: 0.5 * x**2, dist.Normal(100.0, 0.1), sampler=ebm.Langevin(1e-6, num_steps=1)
    )
    assert abs(far.sample(random.key(0)) - 100.0) < 1.0


def test_sample_compiles_once_for_new_parameters(quartic):
    def draws(weight):
        energy = type(quartic)(jnp.array(weight))
        prior = ebm.EnergyBased(energy, dist.Normal(jnp.zeros(3), 1.0).to_event(1))
        return prior.sample(random.key(0), (7,))

    first = draws(0.1)
    compiled = _sample._cache_size()
    second = draws(1.0)
    assert _sample._cache_size() == compiled
    assert jnp.abs(second).mean() < jnp.abs(first).mean()


def test_dtype_is_kept(float64):
    prior = ebm.EnergyBased(quartic, dist.Normal(jnp.zeros(2, jnp.float64), 1.0).to_event(1))
    assert prior.sample(random.key(0)).dtype == jnp.float64
    assert prior.log_prob(jnp.ones(2, jnp.float64)).dtype == jnp.float64
    single = ebm.EnergyBased(
        quartic, dist.Normal(jnp.zeros(2, jnp.float32), jnp.float32(1)).to_event(1)
    )
    assert single.sample(random.key(0)).dtype == single.base.sample(random.key(0)).dtype
    assert single.log_prob(jnp.ones(2, jnp.float32)).dtype == jnp.float32


def test_vmap_over_parameters(quartic):
    weights = jnp.array([0.1, 1.0, 3.0])
    priors = jax.vmap(lambda w: ebm.EnergyBased(type(quartic)(w), base()))(weights)
    mapped = jax.vmap(lambda d, x: d.log_prob(x))(priors, X[:3])
    assert jnp.allclose(mapped, expected(X[:3], weights))
    plain = ebm.EnergyBased(type(quartic)(weights), base())
    axes = vmap_over(plain, energy=0)
    mapped = jax.vmap(lambda d, x: d.log_prob(x), in_axes=(axes, 0))(plain, X[:3])
    assert jnp.allclose(mapped, expected(X[:3], weights))


@pytest.mark.parametrize("plate", [False, True])
def test_control_flow_scan(quartic, plate):
    weights = jnp.array([0.1, 1.0, 3.0])

    def model(x):
        def step(carry, at):
            weight, x = at
            prior = ebm.EnergyBased(type(quartic)(weight), base())
            if plate:
                with numpyro.plate("n", 2):
                    numpyro.sample("x", prior, obs=x)
            else:
                numpyro.sample("x", prior, obs=x)
            return carry, None

        scan(step, 0.0, (weights, x))

    x = random.normal(random.key(0), (3, 2, 2) if plate else (3, 2))
    site = handlers.trace(handlers.seed(model, 0)).get_trace(x)["x"]
    by_step = weights[:, None] if plate else weights
    assert site["fn"].batch_shape == ((3, 2) if plate else (3,))
    assert jnp.allclose(site["fn"].log_prob(x), expected(x, by_step), rtol=1e-5)
    assert site["fn"].log_prob(jnp.stack([x, x])).shape == (2, 3, 2)[: 2 + plate]


def test_copies(prior):
    assert jnp.allclose(copy.deepcopy(prior).log_prob(X), prior.log_prob(X))


def test_map_energy_is_log_prob_through_every_wrapper(prior):
    x = random.normal(random.key(1), (4, 5, 2))
    mask = jnp.arange(5) < 2
    shifted = dist.TransformedDistribution(
        prior.expand((4, 5)), dist.transforms.AffineTransform(2.0, 1.0)
    )
    for fn in (
        prior.expand((4, 5)),
        prior.expand((5,)).mask(mask).expand((4, 5)),
        prior.expand((4, 5)).mask(mask).to_event(1),
        prior.expand((4, 5)).mask(False),
        shifted,
    ):
        assert find_energy(fn) is not None
        mapped = map_energy(fn, x, lambda distribution, x: distribution.log_prob(x))
        assert mapped.shape == fn.batch_shape
        assert jnp.allclose(mapped, fn.log_prob(x), atol=1e-5)
    assert find_energy(dist.Normal(0.0, 1.0)) is None
