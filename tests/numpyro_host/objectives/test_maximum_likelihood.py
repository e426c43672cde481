import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from helpers.oracles import (
    LOG_NORMALIZER_QUARTIC,
    gaussian_tilt,
    quartic_likelihood,
    quartic_likelihood_gradient,
)
from jax import lax, random
from numpyro.infer import SVI

import pyro_ebm.numpyro as ebm
from pyro_ebm.core.infer.metrics import recorded_figures

pytestmark = pytest.mark.usefixtures("float64")

KEY = random.key(0)
X = np.linspace(-1.5, 2, 6)


def quartic(weight):
    return lambda x: weight * x**4 / 4


def quadratic(weight):
    return lambda x: 0.5 * weight * x**2


def losses(num_samples, density, x):
    return jax.jit(lambda x: ebm.MaximumLikelihood(num_samples=num_samples).loss(KEY, density, x))(
        x
    )


def test_value_is_the_negative_log_likelihood():
    num_samples = 400_000
    density = ebm.EnergyBased(quartic(1.0), dist.Normal(0.0, 1.0))
    loss = losses(num_samples, density, X)
    exact = X**4 / 4 + X**2 / 2 + 0.5 * math.log(2 * math.pi) + LOG_NORMALIZER_QUARTIC
    # The weights exp(-x^4 / 4) are at most 1: their standard deviation is below 1/2.
    error = 0.5 / math.exp(LOG_NORMALIZER_QUARTIC) / math.sqrt(num_samples)
    np.testing.assert_allclose(loss, exact, atol=4 * error, rtol=0)
    assert exact.mean() == pytest.approx(quartic_likelihood(X, 1.0, 0.0, 0.0), abs=1e-9)


def test_value_is_low_on_average():
    # A batch of equal bases has independent estimates.
    base = dist.Normal(jnp.zeros(4000), 1.0)
    density = ebm.EnergyBased(quadratic(30.0), base)
    found = losses(20, density, jnp.zeros(4000))
    exact = 0.5 * math.log(2 * math.pi) + gaussian_tilt(30.0, 0.0, 1.0)
    assert found.mean() < exact - 4 * found.std() / math.sqrt(4000)
    # Their exponential is right on average.
    ratios = jnp.exp(found - exact)
    assert ratios.mean() == pytest.approx(1, abs=4 * float(ratios.std()) / math.sqrt(4000))


def test_gradients_in_energy_and_base():
    values, objective = [0.8, 0.3, -0.2], ebm.MaximumLikelihood(num_samples=4000)

    def mean_loss(parameters, key):
        weight, loc, log_scale = parameters
        density = ebm.EnergyBased(quartic(weight), dist.Normal(loc, jnp.exp(log_scale)))
        return objective.loss(key, density, X).mean()

    gradients = jax.jit(jax.vmap(jax.grad(mean_loss), (None, 0)))
    blocks = gradients(jnp.array(values), random.split(KEY, 40))
    error = blocks.std(0) / math.sqrt(len(blocks))
    expected = np.array(quartic_likelihood_gradient(X, *values))
    assert (error < 0.01).all()
    assert (jnp.abs(blocks.mean(0) - expected) < 4 * error).all()


def test_each_element_of_a_batched_base_has_a_normalizer():
    loc, scale = [0.0, 1.5], [0.7, 1.2]
    base = dist.Normal(jnp.array(loc), jnp.array(scale))
    density = ebm.EnergyBased(quadratic(1.5), base).expand((3, 2))
    x = X.reshape(3, 2)
    loss = losses(200_000, density, x)
    tilts = np.array([gaussian_tilt(1.5, *pair) for pair in zip(loc, scale, strict=True)])
    np.testing.assert_allclose(loss, 0.75 * x**2 - base.log_prob(x) + tilts, atol=0.01, rtol=0)


def test_one_call_of_the_energy_and_no_gradient_to_the_value():
    calls = []

    def energy(x):
        calls.append(x.shape)
        return (x**2).sum(-1)

    density = ebm.EnergyBased(energy, dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    objective = ebm.MaximumLikelihood(num_samples=7)
    gradient = jax.jit(jax.grad(lambda x: objective.loss(KEY, density, x).sum()))(jnp.ones((5, 2)))
    assert calls == [(12, 2)]
    assert (gradient == 0).all()


def observed_model(x):
    base = dist.Normal(numpyro.param("loc", 0.0), 1.0)
    with numpyro.plate("data", len(x)):
        energy = quadratic(numpyro.param("weight", 0.2))
        numpyro.sample("x", ebm.EnergyBased(energy, base), obs=x)


def empty_guide(x):
    del x


def test_a_gaussian_is_recovered():
    loss = ebm.EnergyELBO(ebm.MaximumLikelihood(), num_normalizer_samples=0)
    svi = SVI(observed_model, empty_guide, optax.adam(0.05), loss)
    x = 0.4 + math.sqrt(0.5) * random.normal(random.key(1), (1024,))

    def step(state, _):
        state = svi.update(state, x)[0]
        params = svi.get_params(state)
        return state, jnp.stack([params["weight"], params["loc"]])

    weight, loc = lax.scan(step, svi.init(KEY, x), length=200)[1][-100:].mean(0)
    # A Gaussian of precision 1 + weight and mean loc / (1 + weight); over seeds they have
    # deviations of 0.7 % and 0.004.
    assert 1 + weight == pytest.approx(float(1 / x.var()), rel=0.03)
    assert loc / (1 + weight) == pytest.approx(float(x.mean()), abs=0.016)


def test_figures_of_health():
    density = ebm.EnergyBased(quadratic(3.0), dist.Normal(0.0, 1.0))

    @jax.jit
    def figures_at(x):
        with recorded_figures() as figures:
            ebm.MaximumLikelihood(num_samples=100_000).loss(KEY, density, x)
        return {name: figure() for name, figure in figures.items()}

    figures = figures_at(X)
    # (E w)^2 / E w^2 of w = exp(-3 x^2 / 2) under N(0, 1).
    expected = math.exp(2 * gaussian_tilt(3.0, 0.0, 1.0) - gaussian_tilt(6.0, 0.0, 1.0))
    assert figures["effective_samples"] == pytest.approx(1e5 * expected, rel=0.02)
    assert set(figures) == {"energy_gap", "energy_scale", "effective_samples"}


class Implicit(dist.Distribution):
    """Can be drawn from and has no density."""

    support = dist.constraints.real

    def sample(self, key, sample_shape=()):
        return jnp.zeros(sample_shape)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (None, "a base to draw from, got base=None"),
        (Implicit(), "a base with sample and log_prob, got .*Implicit"),
        (dist.ImproperUniform(dist.constraints.real, (), ()), "and log_prob, got .*Improper"),
    ],
)
def test_a_base_with_draws_and_density_is_needed(base, message):
    density = ebm.EnergyBased(quartic(1.0), base, event_shape=())
    with pytest.raises(ValueError, match=message):
        ebm.MaximumLikelihood().loss(KEY, density, X)


@pytest.mark.parametrize("bad", [0, 2.5])
def test_wrong_arguments(bad):
    with pytest.raises(ValueError, match="`num_samples` to be an integer of at least 1"):
        ebm.MaximumLikelihood(num_samples=bad)
