import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import optax
import pytest
from helpers import shared_noise
from helpers.oracles import (
    FITTED_PRECISIONS,
    GAUSSIAN_VALUES,
    gaussian_discrepancy,
    gaussian_discrepancy_gradient,
)
from jax import lax, random
from numpyro.distributions import constraints

import pyro_ebm.numpyro as ebm

pytestmark = pytest.mark.usefixtures("float64", "optimized")


class Quadratic(eqx.Module):
    precision: jax.Array

    def __call__(self, x):
        return 0.5 * self.precision * (x.reshape(len(x), -1) ** 2).sum(-1)


def quadratic(precision, shape):
    return ebm.EnergyBased(Quadratic(precision), event_shape=shape)


def losses(a, sigma2, t, shape, num_data, *, num_negatives=256):
    objective = ebm.EnergyDiscrepancy(variance=t, num_negatives=num_negatives, stabilization=0.0)
    data_key, loss_key = random.split(random.key(0))
    x = math.sqrt(sigma2) * random.normal(data_key, (num_data, *shape))

    @jax.jit
    def evaluate(a):
        loss = objective.loss(loss_key, quadratic(a, shape), x)
        return loss.mean(), loss

    (_, loss), gradient = jax.value_and_grad(evaluate, has_aux=True)(jnp.array(a))
    return loss, float(gradient)


# The log of a mean of M terms is low by half their relative variance over M (Jensen), which grows
# exponentially with dimension and variance: in 16 dimensions the noise is small.
@pytest.mark.parametrize(
    ("shape", "parameters"),
    [((1,), parameters) for parameters in GAUSSIAN_VALUES]
    + [((2,), (2.0, 1.0, 0.5)), ((1, 2, 2), (1.0, 1.0, 0.25)), ((1, 2, 2), (3.0, 0.5, 0.04))]
    + [((16,), (1.0, 1.0, 0.1)), ((16,), (3.0, 0.5, 0.04))],
)
def test_value_and_gradient_equal_the_closed_form(shape, parameters):
    dims = math.prod(shape)
    num_data = 4000 // dims
    loss, gradient = losses(*parameters, shape, num_data)
    error = float(loss.std()) / math.sqrt(num_data)
    exact = dims * gaussian_discrepancy(*parameters)
    assert float(loss.mean()) == pytest.approx(exact, abs=4 * error + 0.01 * dims)
    exact = dims * gaussian_discrepancy_gradient(*parameters)
    assert gradient == pytest.approx(exact, abs=0.03 * dims + 4 * error)


def fit(loss, start, *, num_steps, learning_rate):
    """Mean of the last third of the path of one number."""
    optimizer = optax.adam(learning_rate)

    @jax.jit
    def run(start):
        def step(carry, key):
            parameter, state = carry
            gradient = jax.grad(lambda parameter: loss(key, parameter).mean())(parameter)
            update, state = optimizer.update(gradient, state)
            parameter = parameter + update
            return (parameter, state), parameter

        keys = random.split(random.key(1), num_steps)
        return lax.scan(step, (start, optimizer.init(start)), keys)[1]

    return float(run(jnp.array(start))[-(num_steps // 3) :].mean())


def fitted_precision(num_negatives, stabilization, variance=1.0):
    objective = ebm.EnergyDiscrepancy(
        variance=variance, num_negatives=num_negatives, stabilization=stabilization
    )
    x = random.normal(random.key(0), (4096, 1))
    x = (x - x.mean()) / x.std()
    return fit(
        lambda key, precision: objective.loss(key, quadratic(precision, (1,)), x),
        1.2,
        num_steps=450,
        learning_rate=0.02,
    )


@pytest.mark.parametrize("num_negatives", [1, 4, 16])
def test_precision_is_unbiased_at_stabilization_one(num_negatives):
    assert fitted_precision(num_negatives, 1.0) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("stabilization", "variance"), FITTED_PRECISIONS)
def test_other_stabilizations_lean_as_stated(stabilization, variance):
    expected = FITTED_PRECISIONS[stabilization, variance]
    assert fitted_precision(1, stabilization, variance) == pytest.approx(expected, rel=0.05)


def test_weights_of_a_well_separated_mixture_are_found():
    x = random.normal(random.key(0), (4096, 1)) + 5.0 - 10.0 * (jnp.arange(4096)[:, None] % 5 == 0)
    objective = ebm.EnergyDiscrepancy(variance=32.0, num_negatives=16)

    def loss(key, logit):
        weights = jax.nn.log_sigmoid(jnp.stack([logit, -logit]))
        components = dist.Normal(jnp.array([-5.0, 5.0]), 1.0)
        density = ebm.EnergyBased(
            lambda x: -jax.nn.logsumexp(weights + components.log_prob(x), -1), event_shape=(1,)
        )
        return objective.loss(key, density, x)

    logit = fit(loss, 0.0, num_steps=200, learning_rate=0.05)
    assert 1 / (1 + math.exp(-logit)) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(("num_negatives", "stabilization"), [(16, 1.0), (4, 0.5), (8, 0.0)])
def test_constant_energy(num_negatives, stabilization):
    objective = ebm.EnergyDiscrepancy(
        variance=1.0, num_negatives=num_negatives, stabilization=stabilization
    )
    flat = ebm.EnergyBased(lambda x: x[:, 0] * 0 + 3.0, event_shape=(2,))
    loss = objective.loss(random.key(0), flat, jnp.ones((5, 2)))
    expected = math.log((num_negatives + stabilization) / num_negatives)
    assert loss.shape == (5,)
    assert jnp.allclose(loss, expected, atol=1e-6)


def test_the_base_counts():
    # Data N(0, 1/2) over a base N(0, 1): the energy must add precision 1, not 2.
    objective = ebm.EnergyDiscrepancy(variance=0.5, num_negatives=8)
    x = random.normal(random.key(0), (4096, 1)) * math.sqrt(0.5)
    base = dist.Normal(jnp.zeros(1), 1.0).to_event(1)

    def loss(key, precision):
        return objective.loss(key, ebm.EnergyBased(Quadratic(precision), base), x)

    fitted = fit(loss, 0.2, num_steps=500, learning_rate=0.02)
    assert fitted == pytest.approx(float(1 / (x**2).mean() - 1), abs=0.05)


def test_constrained_support_has_the_same_minimiser():
    # Exponential data of rate 3 over a base of rate 1: the energy is 2 x.
    objective = ebm.EnergyDiscrepancy(variance=1.0, num_negatives=8)
    x = random.exponential(random.key(0), (4096,)) / 3

    def loss(key, rate):
        return objective.loss(key, ebm.EnergyBased(lambda x: rate * x, dist.Exponential(1.0)), x)

    fitted = fit(loss, 1.0, num_steps=400, learning_rate=0.05)
    assert fitted == pytest.approx(float(1 / x.mean() - 1), abs=0.15)
    assert ebm.EnergyBased(lambda x: x, dist.Exponential(1.0)).support == constraints.positive


def test_one_call_of_the_energy_and_no_gradient_to_the_value():
    calls = []

    def energy(x):
        calls.append(x.shape)
        return (x**2).sum(-1)

    objective = ebm.EnergyDiscrepancy(variance=1.0, num_negatives=3)
    density = ebm.EnergyBased(energy, event_shape=(2,))
    gradient = jax.grad(lambda x: objective.loss(random.key(0), density, x).sum())(jnp.ones((5, 2)))
    assert calls == [(20, 2)]
    assert (gradient == 0).all()


def test_forward_noise_is_shared_by_the_negatives_of_a_value():
    perturbation = ebm.GaussianPerturbation(0.5)
    x = jnp.zeros((20000,))
    y = perturbation.forward(random.key(0), x)
    negatives = perturbation.backward(random.key(1), y, 2)
    assert negatives.shape == (2, 20000)
    assert float(y.var()) == pytest.approx(0.5, rel=0.05)
    assert float(negatives.var()) == pytest.approx(1.0, rel=0.05)
    assert float(jnp.corrcoef(negatives)[0, 1]) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variance": 0.0}, "`variance` to be a positive number, got 0.0"),
        ({"variance": math.nan}, "`variance`"),
        ({"variance": 1.0, "num_negatives": 0}, "`num_negatives` to be an integer of at least 1"),
        ({"variance": 1.0, "stabilization": -0.1}, "`stabilization`"),
        ({}, "one of `variance` and `perturbation`, got neither"),
        ({"variance": 1.0, "perturbation": ebm.GaussianPerturbation(1.0)}, "got both"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ebm.EnergyDiscrepancy(**arguments)


class GivenNoise:
    def __init__(self, dtype):
        self.dtype = dtype

    def forward(self, rng_key, x):
        return jnp.asarray(shared_noise.Y, self.dtype)

    def backward(self, rng_key, y, num_negatives):
        return jnp.asarray(shared_noise.NEGATIVES, self.dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float64, 1e-12), (jnp.float32, 1e-6)])
def test_value_and_gradients_are_those_of_the_other_host(dtype, tolerance):
    objective = ebm.EnergyDiscrepancy(
        num_negatives=shared_noise.NUM_NEGATIVES,
        stabilization=shared_noise.STABILIZATION,
        perturbation=GivenNoise(dtype),
    )
    base = dist.Normal(jnp.zeros(3, dtype), jnp.asarray(shared_noise.BASE_SCALE, dtype))

    def losses(net):
        prior = ebm.EnergyBased(
            lambda x: jnp.tanh(x @ net["w"].T + net["b"]) @ net["v"], base.to_event(1)
        )
        return objective.loss(random.key(0), prior, jnp.asarray(shared_noise.X, dtype))

    arrays = {"w": shared_noise.W, "b": shared_noise.B, "v": shared_noise.V}
    net = {name: jnp.asarray(array, dtype) for name, array in arrays.items()}
    found = jax.jit(losses)(net)
    assert found.dtype == dtype
    assert jnp.allclose(found, shared_noise.losses(), atol=tolerance, rtol=tolerance)
    gradients = jax.jit(jax.grad(lambda net: losses(net).mean()))(net)
    for name, expected in shared_noise.gradients().items():
        assert jnp.allclose(gradients[name], expected, atol=tolerance, rtol=tolerance)
