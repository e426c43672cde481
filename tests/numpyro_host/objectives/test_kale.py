import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from flowjax.bijections import Affine, Chain, LeakyTanh
from flowjax.distributions import StandardNormal, Transformed
from flowjax.experimental.numpyro import distribution_to_numpyro, register_params
from helpers import kale_steps as steps
from helpers import linear_gaussian as truth
from helpers.linear_gaussian_numpyro import Toy
from helpers.oracles import gaussian_tilt
from jax import lax, random
from jax.tree_util import Partial
from numpyro.infer import SVI

import pyro_ebm.numpyro as ebm
from pyro_ebm.core.evidence.weights import summarize_log_weights
from pyro_ebm.core.infer.metrics import recorded_figures

KEY = random.key(0)


def quadratic(weights, x):
    """Energy slope * x + curvature * x^2 / 2."""
    return jnp.stack([x, x**2 / 2], -1) @ weights


class GivenNoise(dist.Normal):
    """A normal that is drawn from with the noise that both hosts are given."""

    def sample(self, key, sample_shape=()):
        return self.loc + self.scale * jnp.asarray(steps.NOISE)


class NotReparameterized(GivenNoise):
    has_rsample = False


class Implicit(dist.Distribution):
    """Noise, moved and stretched; nobody knows its density."""

    has_rsample = True
    is_implicit = True
    support = dist.constraints.real

    def __init__(self, loc, scale=1.0, noise=random.normal):
        super().__init__(validate_args=False)
        self.loc, self.scale, self.noise = loc, scale, noise

    def sample(self, key, sample_shape=()):
        return self.loc + self.scale * self.noise(key, sample_shape)


def with_number(form, log_normalizer):
    return {"log_normalizer": log_normalizer} if form.startswith("fenchel") else {}


# --- value and gradients ---


def players():
    base = jnp.array([steps.LOC, steps.SCALE])
    return jnp.asarray(steps.THETA), base, jnp.array(steps.LOG_NORMALIZER)


def check_gradients(found, form, base_loss, *, reparameterized=True):
    expected = steps.gradients(form, base_loss, reparameterized=reparameterized)
    for one, by_hand in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, by_hand, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("family", [GivenNoise, NotReparameterized])
@pytest.mark.parametrize("base_loss", steps.BASE_LOSSES)
@pytest.mark.parametrize("form", steps.FORMS)
def test_gradients_of_all_players_are_those_of_the_formula(form, base_loss, family):
    objective = ebm.KALE(**steps.FORMS[form], base_loss=base_loss, num_base_samples=5)

    def mean_loss(players):
        theta, base, number = players
        prior = ebm.EnergyBased(Partial(quadratic, theta), family(*base))
        loss = objective.loss(KEY, prior, jnp.asarray(steps.X), **with_number(form, number))
        return loss.mean(), loss

    with recorded_figures() as figures:
        found, loss = jax.grad(mean_loss, has_aux=True)(players())
    np.testing.assert_allclose(loss, steps.losses(form), atol=1e-12)
    check_gradients(found, form, base_loss, reparameterized=family is GivenNoise)
    assert ("normalizer_lag" in figures) == form.startswith("fenchel")


@pytest.mark.usefixtures("float64")
def test_figures_of_health():
    prior = ebm.EnergyBased(Partial(quadratic, steps.THETA), GivenNoise(steps.LOC, steps.SCALE))
    with recorded_figures() as figures:
        number = jnp.array(steps.LOG_NORMALIZER)
        ebm.KALE(form="fenchel").loss(KEY, prior, jnp.asarray(steps.X), log_normalizer=number)
    assert set(figures) == set(steps.FIGURES)
    for name, figure in figures.items():
        assert figure() == pytest.approx(steps.FIGURES[name], abs=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("form", steps.FORMS)
def test_an_implicit_base_has_no_density_in_its_loss(form):
    def mean_loss(players):
        theta, base, number = players
        implicit = Implicit(*base, lambda key, shape: jnp.asarray(steps.NOISE))
        prior = ebm.EnergyBased(Partial(quadratic, theta), implicit)
        objective = ebm.KALE(**steps.FORMS[form])
        loss = objective.loss(KEY, prior, jnp.asarray(steps.X), **with_number(form, number))
        return loss.mean(), loss

    found, loss = jax.grad(mean_loss, has_aux=True)(players())
    log_density = dist.Normal(steps.LOC, steps.SCALE).log_prob(steps.X)
    np.testing.assert_allclose(loss, steps.losses(form) + log_density, atol=1e-12)
    check_gradients(found, form, "generalized")


class Scored(dist.Normal):
    has_rsample = False


@pytest.mark.parametrize("family", [dist.Normal, Scored])
@pytest.mark.parametrize("form", ["donsker_varadhan", "fenchel"])
def test_the_base_feels_the_exact_log_partition(form, family):
    """Base N(.8, 1), E = 1.5 x^2 / 2: the derivative of -A is .48 (methods page, 5.3)."""
    objective = ebm.KALE(form=form, num_base_samples=40_000, base_loss="generalized")
    energy = Partial(quadratic, jnp.array([0.0, 1.5]))

    @jax.jit
    @jax.vmap
    def step(key):
        def total(loc):
            prior = ebm.EnergyBased(energy, family(loc, 1.0))
            number = with_number(form, jnp.array(-0.65))
            loss = objective.loss(key, prior, jnp.zeros(()), **number)
            return loss + lax.stop_gradient(prior.base.log_prob(0.0))

        return jax.value_and_grad(total)(0.8)

    values, gradients = step(random.split(KEY, 20))
    error = float(gradients.std()) / math.sqrt(20)
    assert error < 0.004
    assert gradients.mean() == pytest.approx(0.48, abs=4 * error)
    error = float(values.std()) / math.sqrt(20)
    assert values.mean() == pytest.approx(-0.6501453659370776, abs=4 * error + 5e-5)


def test_each_element_of_a_batched_base_has_a_log_partition():
    loc, scale = [0.0, 1.5], [0.7, 1.2]
    base = dist.Normal(jnp.array(loc), jnp.array(scale))
    prior = ebm.EnergyBased(Partial(quadratic, jnp.array([0.0, 1.5])), base).expand((3, 2))
    x = random.normal(random.key(1), (3, 2))
    tilts = jnp.array([gaussian_tilt(1.5, *pair) for pair in zip(loc, scale, strict=True)])
    exact = 0.75 * x**2 - base.log_prob(x) + tilts
    loss = jax.jit(lambda x: ebm.KALE(num_base_samples=100_000).loss(KEY, prior, x))(x)
    np.testing.assert_allclose(loss, exact, atol=0.015, rtol=0)
    objective = ebm.KALE(form="fenchel", num_base_samples=100_000)

    def total(numbers):
        loss = objective.loss(KEY, prior, x, log_normalizer=numbers)
        return loss.sum(), loss

    gradient, loss = jax.jit(jax.grad(total, has_aux=True))(tilts)
    np.testing.assert_allclose(loss, exact, atol=0.015, rtol=0)
    np.testing.assert_allclose(gradient, 0.0, atol=0.05)
    penalized = ebm.KALE(num_base_samples=10, gradient_penalty=1.0)
    assert jax.eval_shape(lambda x: penalized.loss(KEY, prior, x), x).shape == (3, 2)


@pytest.mark.parametrize(
    ("form", "calls"), [("donsker_varadhan", [(12, 2)]), ("fenchel", [(12, 2), (7, 2)])]
)
def test_calls_of_the_energy_and_no_gradient_to_the_value(form, calls):
    seen = []

    def energy(x):
        seen.append(x.shape)
        return (x**2).sum(-1)

    prior = ebm.EnergyBased(energy, dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    objective = ebm.KALE(form=form, num_base_samples=7)

    def total(x):
        return objective.loss(KEY, prior, x, **with_number(form, jnp.zeros(()))).sum()

    gradient = jax.jit(jax.grad(total))(jnp.ones((5, 2)))
    assert seen == calls  # Of the Fenchel form, once more for a base that learns.
    assert (gradient == 0).all()


# --- the gradient penalty ---


def penalty(energy, base, x, **options):
    """The penalty by itself: the difference that it makes."""
    prior = ebm.EnergyBased(energy, base)
    without, penalized = (
        ebm.KALE(gradient_penalty=weight, **options).loss(KEY, prior, x) for weight in (0.0, 1.0)
    )
    return penalized - without


def test_penalty_of_a_linear_energy_is_its_squared_slope():
    base, x = dist.Normal(jnp.zeros(2), 1.0).to_event(1), random.normal(KEY, (2, 3, 2))

    def total(slope):
        found = penalty(lambda x: x @ slope, base, x, num_base_samples=4)
        return found.sum(), found

    slope = jnp.array([0.6, -0.3])
    gradient, found = jax.jit(jax.grad(total, has_aux=True))(slope)
    np.testing.assert_allclose(found, 0.45, rtol=1e-5)
    np.testing.assert_allclose(gradient, 12 * slope, rtol=1e-5)


@pytest.mark.parametrize(("x", "draw"), [(0.0, 2.0), (2.0, 0.0), (-2.0, 2.0)])
def test_penalty_is_taken_between_values_and_draws(x, draw):
    """At x + u (draw - x), u uniform: the mean square is 4/3, its variance 64/45, all three times.

    With x and draw at 0 and 2, 4 u^2 has mean 4/3 and variance 16 (1/5 - 1/9) = 64/45; with both
    ends at 2 in size, so has 4 (2 u - 1)^2.
    """

    def mean_penalty(weights, loc):
        energy = Partial(quadratic, weights)
        values = jnp.full(10_000, x)
        found = penalty(energy, Implicit(loc, 0.0), values, num_base_samples=10)
        return found.mean(), found

    mean, error = 1.5**2 * 4 / 3, 1.5**2 * math.sqrt(64 / 45) / 100
    gradient = jax.jit(jax.grad(mean_penalty, (0, 1), has_aux=True))
    (by_energy, by_base), found = gradient(jnp.array([0.0, 1.5]), draw)
    assert found.mean() == pytest.approx(mean, abs=4 * error)
    assert found.std() == pytest.approx(100 * error, rel=0.05)
    assert by_energy[1] == pytest.approx(2 * float(found.mean()) / 1.5, rel=1e-4)
    assert by_base == pytest.approx(0.0, abs=1e-5)


def test_every_draw_has_its_turn_in_the_penalty():
    draws = jnp.array([5.0, -5.0, 1.0])
    base = Implicit(0.0, 1.0, lambda key, shape: draws)
    energy = Partial(quadratic, jnp.array([0.0, 1.0]))
    found = jax.jit(lambda x: penalty(energy, base, x, num_base_samples=3))(jnp.zeros(3000))
    np.testing.assert_allclose(found.reshape(-1, 3).mean(0), draws**2 / 3, rtol=0.15)


# --- training ---


def train(svi, num_steps, *args):
    """Means of the parameters over the last third of the steps."""

    def step(state, _):
        state, _ = svi.update(state, *args)
        return state, svi.get_params(state)

    _, path = jax.jit(lambda state: lax.scan(step, state, length=num_steps))(svi.init(KEY, *args))
    return jax.tree.map(lambda leaf: leaf[-num_steps // 3 :].mean(0), path)


def declare_log_normalizer(site):
    ebm.auxiliary(site, log_normalizer=numpyro.param("log_normalizer", 0.0))


def guide_of(form):
    def guide(x):
        if form == "fenchel":
            declare_log_normalizer("x")

    return guide


def normal_data(mean, scale, size=1000):
    """Of exactly this mean and standard deviation."""
    noise = random.normal(random.key(2), (size,))
    return mean + scale * (noise - noise.mean()) / noise.std()


@pytest.mark.parametrize("safe_gradient", [True, False])
def test_the_fenchel_form_fits_a_tilt_and_its_log_normalizer(safe_gradient):
    """N(.7, .25) over N(0, 1): curvature 3, slope -2.8, A = .28685, F = KL = .56315 (5.2)."""

    def model(x):
        energy = Partial(quadratic, numpyro.param("weights", jnp.zeros(2)))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", ebm.EnergyBased(energy, dist.Normal(0.0, 1.0)), obs=x)

    objective = ebm.KALE(form="fenchel", num_base_samples=2000, safe_gradient=safe_gradient)
    loss, guide = ebm.EnergyELBO(objective, num_normalizer_samples=0), guide_of("fenchel")
    x = normal_data(0.7, 0.5)
    params = train(SVI(model, guide, optax.adam(0.05), loss), 300, x)
    slope, curvature = params["weights"]
    assert curvature == pytest.approx(3.0, abs=0.2)
    assert slope == pytest.approx(-2.8, abs=0.12)
    assert params["log_normalizer"] == pytest.approx(0.2868528194400546, abs=0.06)
    if safe_gradient:  # What is left needs no second look.
        health = jax.jit(lambda params: loss.health(KEY, params, model, guide, x)["x"])(params)
        # The loss is the negative log-likelihood: -F and the cross-entropy of data and base.
        cross_entropy = 0.5 * math.log(2 * math.pi) + 0.5 * (0.7**2 + 0.25)
        assert cross_entropy - health["objective"] == pytest.approx(0.56315, abs=0.03)
        assert health["normalizer_lag"] == pytest.approx(0.0, abs=0.06)


@pytest.mark.parametrize("form", ["donsker_varadhan", "fenchel"])
def test_an_implicit_base_moves_onto_the_data(form):
    """Data at 1; a generator that starts at -1, its noise as wide."""
    objective = ebm.KALE(form=form, num_base_samples=500, gradient_penalty=0.5)
    optimizer, x = optax.adam(0.05, 0.5, 0.9), normal_data(1.0, 0.5)

    def mean_loss(params, key):
        weights, loc, number = params
        prior = ebm.EnergyBased(Partial(quadratic, weights), Implicit(loc, 0.5))
        return objective.loss(key, prior, x, **with_number(form, number)).mean()

    def step(carry, key):
        params, state = carry
        updates, state = optimizer.update(jax.grad(mean_loss)(params, key), state)
        params = optax.apply_updates(params, updates)
        return (params, state), params[1]

    params = (jnp.zeros(2), jnp.array(-1.0), jnp.array(0.0))
    start = params, optimizer.init(params)
    _, path = jax.jit(lambda start: lax.scan(step, start, random.split(KEY, 200)))(start)
    assert path[-100:].mean() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("form", ["donsker_varadhan", "fenchel"])
def test_a_prior_in_a_linear_gaussian_model_is_recovered(form):
    toy = Toy("plate")

    def guide():
        if form == "fenchel":
            declare_log_normalizer("z")
        toy.guide()

    loss = ebm.EnergyELBO(ebm.KALE(form=form, num_base_samples=500), num_normalizer_samples=0)
    params = train(SVI(toy.model, guide, optax.adam(0.05), loss), 300)
    # Over seeds it has a deviation of 0.5 %.
    assert 1 / 16 + jnp.exp(params["a"]) == pytest.approx(truth.PRECISION, rel=0.02)
    assert params["slope"] == pytest.approx(truth.SLOPE, abs=0.05)
    assert params["scale"] == pytest.approx(truth.SCALE, abs=0.05)
    if form == "fenchel":
        log_normalizer = 0.5 * math.log(1 / 16 / truth.PRECISION)
        assert params["log_normalizer"] == pytest.approx(log_normalizer, abs=0.05)


def small_flow(loc):
    bijection = Chain([LeakyTanh(1.5, (2,)), Affine(jnp.array([loc, 0.0]), jnp.array([1.0, 1.2]))])
    return Transformed(StandardNormal((2,)), bijection)


@pytest.mark.parametrize("form", ["donsker_varadhan", "fenchel"])
def test_a_frozen_base_stays_as_it_is(form):
    start = small_flow(0.3)

    def model(x):
        flow = register_params("flow", start)
        arrays, others = eqx.partition(flow, eqx.is_array)  # A flow holds functions too.
        flow = eqx.combine(lax.stop_gradient(arrays), others)
        energy = Partial(lambda slope, x: x @ slope, numpyro.param("slope", jnp.zeros(2)))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", ebm.EnergyBased(energy, distribution_to_numpyro(flow)), obs=x)

    loss = ebm.EnergyELBO(ebm.KALE(form=form, num_base_samples=20, gradient_penalty=1.0))
    svi, x = SVI(model, guide_of(form), optax.adam(0.1), loss), random.normal(KEY, (10, 2))
    state = svi.init(KEY, x)
    before = svi.get_params(state)
    after = svi.get_params(jax.jit(svi.update)(state, x)[0])
    unchanged = jax.tree.map(jnp.array_equal, before["flow"], after["flow"])
    assert all(jax.tree.leaves(unchanged))
    assert len(jax.tree.leaves(unchanged)) > 1
    assert (after["slope"] != before["slope"]).all()


# --- a pair of densities ---


def test_a_pair_of_flows_has_a_known_log_normalizer():
    """E = log g - log d + c over g: the model is d, and A = -c."""
    base, target = (distribution_to_numpyro(small_flow(loc)) for loc in (0.0, 0.2))
    c, x = 1.7, random.normal(KEY, (5, 2))

    def energy(x):
        return base.log_prob(x) - target.log_prob(x) + c

    @jax.jit
    def results(x):
        model = ebm.EnergyBased(energy, base, log_normalizer=lambda: -c)
        prior = ebm.EnergyBased(energy, base)
        loss = ebm.KALE(num_base_samples=10_000).loss(KEY, prior, x)
        partition = summarize_log_weights(prior.importance_log_weights(KEY, 10_000))
        return target.log_prob(x), model.log_prob(x), loss, partition.standard_error

    expected, found, loss, error = results(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert error < 0.02
    np.testing.assert_allclose(loss, -expected, atol=4 * float(error))


def test_a_pair_of_normals_follows_the_paper():
    """Each is trained by likelihood, and so is A = -c by the bound."""
    c = 0.6

    def model(x):
        target = dist.Normal(numpyro.param("target", -0.5), 1.0)
        base = dist.Normal(numpyro.param("base", 0.8), 1.0)
        held = lax.stop_gradient(base)

        def energy(x):
            return held.log_prob(x) - target.log_prob(x) + c

        with numpyro.plate("data", len(x)):
            numpyro.sample("x", ebm.EnergyBased(energy, base), obs=x)

    objective = ebm.KALE(form="fenchel", base_loss="likelihood", num_base_samples=500)
    loss = ebm.EnergyELBO(objective, num_normalizer_samples=0)
    svi = SVI(model, guide_of("fenchel"), optax.adam(0.05), loss)
    params = train(svi, 200, normal_data(0.3, 1.0))
    found = [params[name] for name in ("target", "base", "log_normalizer")]
    np.testing.assert_allclose(found, [0.3, 0.3, -c], atol=0.02)


# --- errors ---


class Unsampled(dist.Distribution):
    """Has a density, no draws."""

    support = dist.constraints.real


@pytest.mark.parametrize(
    ("options", "base", "learners", "message"),
    [
        ({}, None, {}, "a base to draw from, got base=None"),
        ({}, Unsampled(), {}, "a base that can be sampled, got .*Unsampled"),
        ({"base_loss": "full"}, Implicit(0.0), {}, "without a density, got 'full' for .*Implicit"),
        ({"base_loss": "likelihood"}, Implicit(0.0), {}, "without a density, got 'likelihood'"),
        ({"form": "fenchel"}, Implicit(0.0), {}, "got form='fenchel' and none"),
        ({}, Implicit(0.0), {"log_normalizer": jnp.zeros(())}, "varadhan' and one"),
        (
            {"form": "fenchel"},
            Implicit(0.0),
            {"log_normalizer": jnp.zeros(3)},
            r"the batch shape of the base, \(\), got shape \(3,\)",
        ),
    ],
)
def test_what_does_not_go_together(options, base, learners, message):
    prior = ebm.EnergyBased(Partial(quadratic, jnp.zeros(2)), base, event_shape=())
    with pytest.raises(ValueError, match=message):
        ebm.KALE(**options).loss(KEY, prior, jnp.zeros(3), **learners)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "dv"}, r"`form` to be one of \['donsker_varadhan', 'fenchel'\], got 'dv'"),
        ({"base_loss": "gan"}, "`base_loss` to be one of .*'full'.*, got 'gan'"),
        ({"num_base_samples": 0}, "`num_base_samples` to be an integer of at least 1, got 0"),
        ({"gradient_penalty": -1.0}, "`gradient_penalty` to be a number of at least 0, got -1.0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ebm.KALE(**arguments)
