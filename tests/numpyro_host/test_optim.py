"""Optimizers that sit steps out."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from jax import lax, random
from numpyro.infer import SVI, Trace_ELBO

from pyro_ebm.numpyro import step_when

# All with something that moves a parameter, or itself, where the gradient is zero.
OPTIMIZERS = {
    "adamw": (optax.adamw, {"learning_rate": 0.1, "weight_decay": 0.1}),
    "sgd": (optax.sgd, {"learning_rate": optax.linear_schedule(0.1, 0.0, 10), "momentum": 0.9}),
}
NUM_STEPS = 7
GRADIENTS = random.normal(random.key(0), (NUM_STEPS, 3))


def every_third(count):
    return count % 3 == 0


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def equal(one, other):
    return all(np.array_equal(*pair) for pair in zip(leaves(one), leaves(other), strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parked_parameter_and_its_state_stay_as_they_are(name):
    make, options = OPTIMIZERS[name]
    optimizer = step_when(make)(**options, condition=every_third)
    parameter = jnp.ones(3)
    state = optimizer.init(parameter)
    update = jax.jit(optimizer.update)
    for count, gradient in enumerate(GRADIENTS):
        updates, after = update(gradient, state, parameter)
        assert equal(optax.apply_updates(parameter, updates), parameter) != every_third(count)
        assert equal(after.inner_state, state.inner_state) != every_third(count)
        parameter, state = optax.apply_updates(parameter, updates), after


@pytest.mark.parametrize("condition", [None, every_third])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_the_plain_optimizer_on_the_gradients_it_moves_on(name, condition):
    make, options = OPTIMIZERS[name]
    moves = [condition is None or condition(count) for count in range(NUM_STEPS)]

    def train(optimizer, gradients):
        def step(carry, gradient):
            parameter, state = carry
            updates, state = optimizer.update(gradient, state, parameter)
            return (optax.apply_updates(parameter, updates), state), None

        start = (jnp.ones(3), optimizer.init(jnp.ones(3)))
        return lax.scan(step, start, gradients)[0]

    ours, state = train(step_when(make)(**options, condition=condition), GRADIENTS)
    theirs, plain = train(make(**options), GRADIENTS[np.array(moves)])
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    inner = state if condition is None else state.inner_state
    for one, other in zip(leaves(inner), leaves(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def model(x):
    loc = numpyro.param("loc", jnp.array(0.0))
    log_scale = numpyro.param("log_scale", jnp.array(0.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(loc, jnp.exp(log_scale)), obs=x)


def inference():
    players = {
        "slow": step_when(optax.adam)(0.1, condition=every_third),
        "fast": optax.adam(0.1),
    }
    optimizer = optax.multi_transform(players, {"loc": "slow", "log_scale": "fast"})
    return SVI(model, lambda x: None, optimizer, Trace_ELBO())


def test_players_of_one_svi_have_their_own_conditions():
    """As two optimizers in a loop by hand."""
    x = GRADIENTS[0] + 2.0
    svi = inference()
    state, update = svi.init(random.key(0), x), jax.jit(svi.update)
    optimizer = optax.adam(0.1)

    @jax.jit
    def gradients(loc, log_scale):
        def loss(loc, log_scale):
            return -dist.Normal(loc, jnp.exp(log_scale)).log_prob(x).sum()

        return jax.grad(loss, argnums=(0, 1))(loc, log_scale)

    @jax.jit
    def step(gradient, state, parameter):
        updates, state = optimizer.update(gradient, state, parameter)
        return optax.apply_updates(parameter, updates), state

    players = [jnp.array(0.0), jnp.array(0.0)]
    states = [optimizer.init(player) for player in players]
    for count in range(NUM_STEPS):
        before = svi.get_params(state)
        state, _ = update(state, x)
        after = svi.get_params(state)
        assert equal(before["loc"], after["loc"]) != every_third(count)
        for i, gradient in enumerate(gradients(*players)):
            if i == 1 or every_third(count):
                players[i], states[i] = step(gradient, states[i], players[i])
        np.testing.assert_allclose([after["loc"], after["log_scale"]], players, rtol=1e-5)


def test_saved_training_goes_on_where_it_stopped():
    """The state is all there is; its arrays are what one saves."""
    x = GRADIENTS[0] + 2.0

    def train(svi, state, num_steps):
        update = jax.jit(svi.update)
        for _ in range(num_steps):
            state, _ = update(state, x)
        return state

    first, second = inference(), inference()
    start = first.init(random.key(0), x)
    straight = train(first, start, NUM_STEPS)
    saved = leaves(train(first, start, NUM_STEPS - 3).optim_state)
    fresh = second.init(random.key(0), x)
    restored = jax.tree.unflatten(jax.tree.structure(fresh.optim_state), saved)
    resumed = train(second, fresh._replace(optim_state=restored), 3)
    assert equal(second.get_params(resumed), first.get_params(straight))


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (optax.adam(0.1), "such as optax.adam does, got GradientTransformationExtraArgs"),
        ("adam", "such as optax.adam does, got str"),
    ],
)
def test_what_makes_no_transformation(optimizer, message):
    with pytest.raises(TypeError, match=message):
        step_when(optimizer)


def test_an_optimizer_of_numpyro():
    with pytest.raises(TypeError, match="got one that makes Adam"):
        step_when(numpyro.optim.Adam)(0.1)


def test_a_condition_that_is_no_function():
    with pytest.raises(TypeError, match="`condition` to be callable, got int"):
        step_when(optax.adam)(0.1, condition=5)
