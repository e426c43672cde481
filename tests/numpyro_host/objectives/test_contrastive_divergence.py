import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from helpers.oracles import pseudo_spherical_gradient
from jax import lax, random
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.infer import SVI

import pyro_ebm.numpyro as ebm
from pyro_ebm.numpyro.samplers import TransitionInfo

pytestmark = pytest.mark.usefixtures("float64")

KEY = random.key(0)
X = np.linspace(-2, 2, 8)


@dataclass(frozen=True)
class Walk:
    """A sampler without noise: a step of a fixed length, or, with None, to the potential there."""

    stride: float | None = 1.0
    num_steps: int = 1
    target_acceptance: float | None = None
    adapt_scale: bool = False

    def init(self, potential, position):
        return ebm.MALA(1.0).init(potential, position)

    def step(self, rng_key, potential, state):
        leaks = self.stride is None
        position = potential(state.position) if leaks else state.position + self.stride
        sure = jnp.ones_like(state.potential)
        return state._replace(position=position), TransitionInfo(sure, sure < 0)


def quadratic(weight, x):
    return 0.5 * weight * x**2


def bowl(weight=1.0):
    return jax.tree_util.Partial(quadratic, jnp.asarray(weight))


class Remembering:
    """E(x) = x^2 / 2; remembers the shapes of all, and the values of the last, of its arguments."""

    def __init__(self):
        self.shapes, self.last = [], None

    def __call__(self, x):
        self.shapes.append(x.shape)
        self.last = x
        return 0.5 * x**2


def flat(energy):
    return ebm.EnergyBased(energy, event_shape=())


def over_normal(energy, loc=0.0, scale=1.0):
    return ebm.EnergyBased(energy, dist.Normal(loc, scale))


def assert_mean(blocks, expected):
    """Whether independent estimates, shape ``(N, K)``, are right on average."""
    error = blocks.std(0) / math.sqrt(len(blocks))
    assert (error < 0.05).all()
    assert (jnp.abs(blocks.mean(0) - jnp.array(expected)) < 4 * error).all(), blocks.mean(0)


# --- gradients ---


def likelihood_gradients(density, parameters, values, draws):
    """Gradients for each of 40 blocks of 500 values and draws, shape ``(40, K)``."""
    noise = random.normal(KEY, (2, 40, 500))
    objective = ebm.ContrastiveDivergence()

    def mean_loss(parameters, x, chains):
        loss = objective.loss(KEY, density(*parameters), x, chains=chains)
        assert loss.shape == (500,)
        return loss.mean()

    blocks = jax.vmap(jax.grad(mean_loss), (None, 0, 0))
    return jax.jit(blocks)(jnp.array(parameters), values(noise[0]), draws(noise[1]))


def test_gradient_is_that_of_the_likelihood():
    def density(mu, log_scale):
        return flat(lambda x: 0.5 * ((x - mu) / jnp.exp(log_scale)) ** 2)

    parameters = (0.4, math.log(1.2))
    blocks = likelihood_gradients(
        density, parameters, lambda noise: noise - 0.3, lambda noise: 0.4 + 1.2 * noise
    )
    assert_mean(blocks, pseudo_spherical_gradient(0.0, *parameters))


def test_gradient_in_the_base_is_that_of_the_likelihood():
    # The model is N(loc / 2, 1/2); x has mean 1 and variance 1.
    blocks = likelihood_gradients(
        lambda weight, loc: over_normal(bowl(weight), loc),
        (1.0, 0.5),
        lambda noise: noise + 1,
        lambda noise: 0.25 + math.sqrt(0.5) * noise,
    )
    assert_mean(blocks, [0.5 * (2 - 0.5 - 0.25**2), 0.25 - 1.0])


def test_no_gradient_flows_through_the_sampler():
    objective = ebm.ContrastiveDivergence(sampler=Walk(None), start="data")

    def loss(weight, value):
        return objective.loss(KEY, flat(bowl(weight)), value).sum()

    weight_gradient, value_gradient = jax.jit(jax.grad(loss, (0, 1)))(0.7, X)
    # Each value x has the draw w x^2 / 2, whose own derivative in w is left out.
    expected = 0.5 * (X**2 - (0.35 * X**2) ** 2).sum()
    assert weight_gradient == pytest.approx(expected)
    assert (value_gradient == 0).all()


def test_each_element_of_a_batched_base_has_draws_of_its_own():
    value, loc = X.reshape(4, 2), jnp.array([-2.0, 3.0])
    objective = ebm.ContrastiveDivergence(sampler=Walk(0.5), num_steps=2)
    remembering = Remembering()
    loss = objective.loss(KEY, over_normal(remembering, loc, 0.5).expand((4, 2)), value)
    draws = remembering.last[8:].reshape(4, 2)
    assert loss.shape == (4, 2)
    assert (jnp.abs(draws - 1 - loc) < 3).all()

    def total(weight, loc):
        return objective.loss(KEY, over_normal(bowl(weight), loc, 0.5).expand((4, 2)), value).sum()

    found = jax.jit(jax.grad(total, (0, 1)))(1.0, loc)
    np.testing.assert_allclose(found[0], 0.5 * (value**2 - draws**2).sum())
    # U has the derivative -4 (x - loc) in loc, as the base has the scale 1/2.
    np.testing.assert_allclose(found[1], 4 * (draws - value).sum(0))


def test_each_step_of_a_scan_has_draws_of_its_own():
    """One energy is flat, the other narrow: of shared draws neither loss would be right."""
    steps = promote_batch_shape(ebm.EnergyBased(bowl(jnp.array([0.0, 1e4])), event_shape=()))
    objective = ebm.ContrastiveDivergence(sampler=ebm.MALA(5e-5, num_steps=30))
    loss = objective.loss(KEY, steps, jnp.zeros(2))
    # A flat energy gives zero; the draws of the narrow one have come from 1 down to 0.01.
    assert loss.shape == (2,)
    assert loss[0] == 0.0
    assert -100 < loss[1] < 0


def test_energy_penalty():
    draws = jnp.array([1.0, 3.0])

    def loss_and_gradient(penalty):
        objective = ebm.ContrastiveDivergence(energy_penalty=penalty)

        def mean_loss(weight):
            return objective.loss(KEY, over_normal(bowl(weight)), X, chains=draws).mean()

        return jnp.stack(jax.jit(jax.value_and_grad(mean_loss))(0.7))

    fourth = (X**4).mean() + (draws**4).mean()
    expected = 0.3 * jnp.array([0.7**2 * fourth / 4, 0.7 * fourth / 2])
    np.testing.assert_allclose(loss_and_gradient(0.3) - loss_and_gradient(0.0), expected)


# --- draws ---


def test_one_call_of_the_energy_for_values_and_draws():
    energy = Remembering()
    objective = ebm.ContrastiveDivergence(sampler=ebm.MALA(0.1), num_steps=5, num_negatives=3)
    objective.loss(KEY, over_normal(energy), X)
    # The others are the sampler's, which JAX traces as often as it likes.
    assert energy.shapes[-1] == (8 + 3,)
    assert set(energy.shapes[:-1]) == {(3,)}


@pytest.mark.parametrize(("num_steps", "distance"), [(None, 2.0), (5, 5.0)])
@pytest.mark.parametrize(("start", "at"), [("data", X), ("base", 100 + 0 * X)])
def test_where_draws_start(num_steps, distance, start, at):
    energy = Remembering()
    objective = ebm.ContrastiveDivergence(
        sampler=Walk(num_steps=2), num_steps=num_steps, start=start
    )
    objective.loss(KEY, over_normal(energy, 100.0, 1e-9), X)
    np.testing.assert_allclose(energy.last, np.concatenate([X, at + distance]))


def test_each_value_has_the_draw_that_started_at_it():
    loss = ebm.ContrastiveDivergence(sampler=Walk(), start="data").loss(
        KEY, ebm.EnergyBased(bowl(), event_shape=()), X
    )
    np.testing.assert_allclose(loss, X**2 / 2 - (X + 1) ** 2 / 2)


def test_the_sampler_of_the_distribution_is_the_default():
    energy = Remembering()
    distribution = ebm.EnergyBased(energy, dist.Normal(0.0, 1e-9), sampler=Walk(7.0))
    ebm.ContrastiveDivergence(num_negatives=2).loss(KEY, distribution, X)
    np.testing.assert_allclose(energy.last[8:], 7.0)


def test_a_single_value_has_two_draws():
    energy = Remembering()
    ebm.ContrastiveDivergence(sampler=Walk()).loss(KEY, over_normal(energy), X[0])
    assert energy.last.shape == (3,)


# --- training ---


def observed_model(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", over_normal(bowl(numpyro.param("weight", 0.2))), obs=x)


def empty_guide(**learners):
    return lambda x: ebm.auxiliary("x", **learners)


@pytest.mark.parametrize(
    ("options", "buffer_size"),
    [
        ({"start": "data", "num_steps": 1}, None),
        ({"start": "base"}, None),
        ({}, 1024),
    ],
)
def test_a_gaussian_is_recovered(options, buffer_size):
    sampler = ebm.MALA(0.4, num_steps=3)
    chains = buffer_size and ebm.PersistentChains(
        256, (), sampler=sampler, buffer_size=buffer_size, restart_probability=0.05
    )
    guide = empty_guide(**({"chains": chains} if chains else {}))
    objective = ebm.ContrastiveDivergence(sampler=sampler, **options)
    loss = ebm.EnergyELBO(objective, num_normalizer_samples=0)
    svi = SVI(observed_model, guide, optax.adam(0.05), loss)
    x = math.sqrt(0.5) * random.normal(random.key(1), (1024,))

    def step(state, _):
        state = svi.update(state, x)[0]
        return state, 1 + svi.get_params(state)["weight"]

    path = lax.scan(step, svi.init(KEY, x), length=200)[1]
    # The base has precision 1, the data have 2. Over seeds the mean has a deviation of 0.8 %.
    assert path[-100:].mean() == pytest.approx(float(1 / (x**2).mean()), rel=0.03)


def test_figures_of_health():
    loss = ebm.EnergyELBO(ebm.ContrastiveDivergence(sampler=Walk(), start="data"))
    params = {"weight": jnp.array(1.0)}
    figures = loss.health(KEY, params, observed_model, empty_guide(), X)["x"]
    values, draws = 0.5 * X**2, 0.5 * (X + 1) ** 2
    assert figures["energy_gap"] == pytest.approx((draws - values).mean())
    assert figures["energy_scale"] == pytest.approx(np.concatenate([values, draws]).std())
    # The base N(0, 1) doubles the potential, and nothing is known of the likelihood.
    assert figures["objective"] == pytest.approx(2 * (values - draws).mean())
    assert set(figures) == {"objective", "energy_gap", "energy_scale"}


# --- what it refuses ---


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sampler": 0.1}, TypeError, "`sampler` to have init and step, got float"),
        ({"num_steps": 0}, ValueError, "`num_steps` to be an integer of at least 1, got 0"),
        ({"num_negatives": 1.5}, ValueError, "`num_negatives` to be an integer of at least 1"),
        ({"start": "noise"}, ValueError, r"`start` to be one of \['data', 'base'\], got 'noise'"),
        ({"energy_penalty": -1}, ValueError, "`energy_penalty` to be a number of at least 0"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ebm.ContrastiveDivergence(**arguments)


def test_chains_of_another_shape():
    message = r"event shape of their site, \(\), got shape \(4, 1\)"
    with pytest.raises(ValueError, match=message):
        ebm.ContrastiveDivergence().loss(KEY, over_normal(bowl()), X, chains=jnp.zeros((4, 1)))
