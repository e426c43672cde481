import math

import numpy as np
import pytest

from helpers.objectives.step import assert_mean
from helpers.oracles import pseudo_spherical_gradient

pytestmark = pytest.mark.usefixtures("float64")

X = np.linspace(-2, 2, 8)


class Recorder:
    """E(x) = x^2 / 2; keeps the shapes of all its arguments, and the last of them."""

    def __init__(self):
        self.shapes, self.last = [], None

    def __call__(self, x):
        self.shapes.append(tuple(x.shape))
        self.last = x
        return 0.5 * x**2

    @property
    def values(self):
        return np.asarray(self.last)


def quadratic(weight, x):
    return 0.5 * weight * x**2


def over_normal(host, energy, loc=0.0, scale=1.0, **options):
    base = host.dist.Normal(host.array(loc), host.array(scale))
    return host.ebm.EnergyBased(energy, base, **options)


# --- gradients ---


def noise_blocks():
    """40 blocks of 500 values, and of as many draws."""
    return np.random.default_rng(0).normal(size=(2, 40, 500))


def test_gradient_is_that_of_the_likelihood(host):
    def prior(p):
        scale = host.xp.exp(p["log_scale"])
        return host.ebm.EnergyBased(lambda x: 0.5 * ((x - p["mu"]) / scale) ** 2, event_shape=())

    params, noise = {"mu": 0.4, "log_scale": math.log(1.2)}, noise_blocks()
    objective, draws = host.ebm.ContrastiveDivergence(), 0.4 + 1.2 * noise[1]
    losses, gradients = host.blocks(objective, prior, params, noise[0] - 0.3, chains=draws)
    assert losses.shape == (40, 500)
    found = np.stack([gradients[name] for name in params], -1)
    assert_mean(found, pseudo_spherical_gradient(0.0, *params.values()), 0.05)


def test_gradient_in_the_base_is_that_of_the_likelihood(host):
    """The model is N(loc / 2, 1/2); x has mean 1 and variance 1."""

    def prior(p):
        base = host.dist.Normal(p["loc"], 1.0)
        return host.ebm.EnergyBased(lambda x: quadratic(p["weight"], x), base)

    params, noise = {"weight": 1.0, "loc": 0.5}, noise_blocks()
    objective, draws = host.ebm.ContrastiveDivergence(), 0.25 + math.sqrt(0.5) * noise[1]
    _, gradients = host.blocks(objective, prior, params, noise[0] + 1, chains=draws)
    found = np.stack([gradients[name] for name in params], -1)
    assert_mean(found, [0.5 * (2 - 0.5 - 0.25**2), 0.25 - 1.0], 0.05)


def test_no_gradient_flows_through_the_sampler(host):
    def prior(p):
        energy = host.bind(quadratic, p["weight"])
        return host.ebm.EnergyBased(energy, event_shape=(), num_sampler_steps=1)

    objective = host.ebm.ContrastiveDivergence(sampler=host.Walk(None), init="data")
    found = host.step(objective, prior, {"weight": 0.7}, X)
    # Each value x has the draw w x^2 / 2, whose own derivative in w is left out.
    expected = 0.5 * (X**2 - (0.35 * X**2) ** 2).mean()
    assert found.gradients["weight"] == pytest.approx(expected)
    assert np.all(found.by_value == 0)


def test_each_element_of_a_batched_base_has_its_own_draws(host):
    loc, value = np.array([-2.0, 3.0]), X.reshape(4, 2)
    objective = host.ebm.ContrastiveDivergence(sampler=host.Walk(0.5), num_steps=2, init="base")
    recorder = Recorder()
    host.loss_of(objective, over_normal(host, recorder, loc, 0.5).expand((4, 2)), value)
    draws = recorder.values[8:].reshape(4, 2)
    assert np.all(abs(draws - 1 - loc) < 3)

    def prior(p):
        base = host.dist.Normal(p["loc"], 0.5)
        return host.ebm.EnergyBased(host.bind(quadratic, p["weight"]), base).expand((4, 2))

    found = host.step(objective, prior, {"weight": 1.0, "loc": loc}, value)
    assert found.loss.shape == (4, 2)
    expected = 0.5 * (value**2 - draws**2).mean()
    assert found.gradients["weight"] == pytest.approx(expected)
    # U has the derivative -4 (x - loc) in loc, as the base has the scale 1/2.
    np.testing.assert_allclose(found.gradients["loc"], 4 * (draws - value).mean(0) / 2)


def test_energy_penalty(host):
    draws = np.array([1.0, 3.0])

    def prior(p):
        return over_normal(host, lambda x: quadratic(p["weight"], x))

    def step(penalty):
        objective = host.ebm.ContrastiveDivergence(energy_penalty=penalty)
        attached = {"chains": host.array(draws)}
        return host.step(objective, prior, {"weight": 0.7}, X, lambda p: attached)

    found, fourth = step(0.3) - step(0.0), (X**4).mean() + (draws**4).mean()
    assert found.loss.mean() == pytest.approx(0.3 * 0.7**2 * fourth / 4)
    assert found.gradients["weight"] == pytest.approx(0.3 * 0.7 * fourth / 2)


# --- draws ---


@pytest.mark.parametrize(("num_samples", "expected"), [(None, 8), (3, 3)])
def test_number_of_draws(host, num_samples, expected):
    """The energy of values and draws is called once; the other calls are the sampler's."""
    energy, sampler = Recorder(), host.ebm.MALA(0.1)
    options = {"sampler": sampler, "num_steps": 5, "num_samples": num_samples, "init": "base"}
    host.loss_of(host.ebm.ContrastiveDivergence(**options), over_normal(host, energy), X)
    assert energy.shapes[-1] == (8 + expected,)
    assert set(energy.shapes[:-1]) == {(expected,)}


@pytest.mark.parametrize(
    ("init", "at", "num_steps", "distance"),
    [
        ("data", X, None, 20.0),
        ("data", X, 5, 5.0),
        ("base", 100 + 0 * X, None, 2.0),
        ("base", 100 + 0 * X, 5, 5.0),
    ],
)
def test_start_and_length_of_chains(host, init, at, num_steps, distance):
    energy = Recorder()
    objective = host.ebm.ContrastiveDivergence(sampler=host.Walk(), num_steps=num_steps, init=init)
    host.loss_of(objective, over_normal(host, energy, 100.0, 1e-9, num_sampler_steps=2), X)
    np.testing.assert_allclose(energy.values, np.concatenate([X, at + distance]))


def test_each_value_has_the_draw_that_started_at_it(host):
    prior = host.ebm.EnergyBased(Recorder(), event_shape=())
    objective = host.ebm.ContrastiveDivergence(sampler=host.Walk(), num_steps=1, init="data")
    np.testing.assert_allclose(host.loss(objective, prior, X), X**2 / 2 - (X + 1) ** 2 / 2)


@pytest.mark.parametrize("num_rows", [1, 8])
def test_moves_from_data_fit_the_data_whatever_the_base(host, num_rows):
    """20 moves of half a standard deviation, of a distribution each or of one."""
    energy, loc = Recorder(), 0.0 if num_rows == 1 else np.zeros(num_rows)
    prior = over_normal(host, energy, loc, 1e6, inverse_temperature=1e-6)
    host.loss_of(host.ebm.ContrastiveDivergence(), prior, np.tile(X, (50, 1)))
    values, draws = np.split(energy.values, 2)
    assert (draws - values).std() == pytest.approx(0.5 * X.std() * 20**0.5, rel=0.15)


def test_sampler_of_the_distribution_is_the_default(host):
    energy = Recorder()
    options = {"sampler": host.Walk(7.0), "num_sampler_steps": 1}
    prior = over_normal(host, energy, 0.0, 1e-9, **options)
    host.loss_of(host.ebm.ContrastiveDivergence(num_samples=2, init="base"), prior, X)
    np.testing.assert_allclose(energy.values[8:], 7.0)


def test_single_value_has_two_draws(host):
    energy = Recorder()
    objective = host.ebm.ContrastiveDivergence(sampler=host.Walk(), num_steps=1, init="base")
    host.loss_of(objective, over_normal(host, energy), X[0])
    assert energy.last.shape == (3,)


# --- training ---


def model_of(host):
    def model(x):
        energy = host.bind(quadratic, host.ppl.param("weight", host.array(0.2)))
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("x", over_normal(host, energy), obs=x)

    return model


@pytest.mark.parametrize(
    ("options", "buffer_size"),
    [({"num_steps": 1}, None), ({"init": "base", "num_steps": 3}, None), ({}, 256), ({}, 1024)],
)
def test_gaussian_is_recovered(host, options, buffer_size):
    sampler = host.ebm.MALA(0.4)

    def guide(x):
        if buffer_size is not None:
            chains = host.ebm.PersistentChains(
                256,
                (),
                sampler=sampler,
                num_steps=3,
                buffer_size=buffer_size,
                restart_probability=0.05,
            )
            host.ebm.attach("x", chains=chains)

    objective = host.ebm.ContrastiveDivergence(sampler=sampler, **options)
    loss = host.ebm.EnergyELBO(objective, num_normalizer_samples=0)
    x = math.sqrt(0.5) * np.random.default_rng(1).normal(size=1024)
    found = host.fit(model_of(host), guide, loss, host.array(x), num_steps=200)
    # The base has precision 1, the data have 2. Over seeds the mean has a deviation of 0.8 %.
    assert 1 + found.mean("weight", 100) == pytest.approx(1 / (x**2).mean(), rel=0.03)


def test_metrics(host):
    def prior(p):
        return over_normal(host, lambda x: 0.5 * x**2)

    objective = host.ebm.ContrastiveDivergence(sampler=host.Walk(), num_steps=1, init="data")
    found, values, draws = host.step(objective, prior, {}, X), 0.5 * X**2, 0.5 * (X + 1) ** 2
    assert found.metrics == {
        "energy_gap": pytest.approx((draws - values).mean()),
        "energy_scale": pytest.approx(np.concatenate([values, draws]).std()),
    }
    # The base N(0, 1) doubles the potential.
    np.testing.assert_allclose(found.loss, 2 * (values - draws))


def test_chains_of_another_shape(host):
    objective, chains = host.ebm.ContrastiveDivergence(), host.array(np.zeros((4, 1)))
    message = r"event shape of their site, \(\), got shape \(4, 1\)"
    with pytest.raises(ValueError, match=message):
        host.loss(objective, over_normal(host, Recorder()), X, chains=chains)
