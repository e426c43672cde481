import math

import numpy as np
import pytest

from helpers import kale_steps as steps
from helpers import linear_gaussian as truth
from helpers.objectives.step import assert_mean
from helpers.oracles import gaussian_log_normalizer

pytestmark = pytest.mark.usefixtures("float64")

BOTH_FORMS = ["donsker_varadhan", "fenchel"]
PLAYERS = {"theta": steps.THETA, "base": [steps.LOC, steps.SCALE], "number": steps.LOG_NORMALIZER}


def quadratic(weights):
    """Energy slope * x + curvature * x^2 / 2."""
    return lambda x: weights[0] * x + weights[1] * x**2 / 2


def number_of(form):
    """The learned log-normalizer, for the Fenchel form."""
    if form.startswith("fenchel"):
        return lambda p: {"log_normalizer": p["number"]}
    return None


def normal_data(mean, scale, size=1000):
    """Of exactly this mean and standard deviation."""
    noise = np.random.default_rng(2).normal(size=size)
    return mean + scale * (noise - noise.mean()) / noise.std()


# --- value and gradients ---


@pytest.mark.parametrize("has_rsample", [True, False])
@pytest.mark.parametrize("base_loss", steps.BASE_LOSSES)
@pytest.mark.parametrize("form", steps.FORMS)
def test_gradients_of_all_players(host, form, base_loss, has_rsample):
    def prior(p):
        base = host.given_normal(steps.NOISE, *p["base"], has_rsample=has_rsample)
        return host.ebm.EnergyBased(quadratic(p["theta"]), base)

    objective = host.ebm.KALE(**steps.FORMS[form], base_loss=base_loss, num_samples=5)
    found = host.step(objective, prior, PLAYERS, steps.X, number_of(form))
    np.testing.assert_allclose(found.loss, steps.losses(form), atol=1e-12)
    expected = steps.gradients(form, base_loss, has_rsample=has_rsample)
    for name, by_hand in zip(PLAYERS, expected, strict=True):
        np.testing.assert_allclose(found.gradients[name], by_hand, atol=1e-12)
    assert ("normalizer_lag" in found.metrics) == form.startswith("fenchel")
    for name, metric in found.metrics.items():
        assert metric == pytest.approx(steps.METRICS[name], abs=1e-12)


@pytest.mark.parametrize("form", steps.FORMS)
def test_implicit_base(host, form):
    """No density in the loss, and the game of a generator against a critic."""

    def prior(p):
        base = host.given_implicit(steps.NOISE, *p["base"])
        return host.ebm.EnergyBased(quadratic(p["theta"]), base)

    objective = host.ebm.KALE(**steps.FORMS[form])
    found = host.step(objective, prior, PLAYERS, steps.X, number_of(form))
    expected = steps.losses(form) + steps.log_density(steps.X)
    np.testing.assert_allclose(found.loss, expected, atol=1e-12)
    expected = steps.gradients(form, "generalized", has_rsample=True)
    for name, by_hand in zip(PLAYERS, expected, strict=True):
        np.testing.assert_allclose(found.gradients[name], by_hand, atol=1e-12)


@pytest.mark.parametrize("has_rsample", [True, False])
@pytest.mark.parametrize("form", BOTH_FORMS)
def test_base_follows_the_exact_log_partition(host, form, has_rsample):
    """Base N(.8, 1), E = 1.5 x^2 / 2: the derivative of -A is .48 (methods page, 5.3)."""
    family = host.dist.Normal if has_rsample else host.Scored

    def prior(p):
        return host.ebm.EnergyBased(quadratic((0.0, 1.5)), family(p["loc"], 1.0))

    objective = host.ebm.KALE(form=form, num_samples=40_000, base_loss="generalized")
    fixed = {"log_normalizer": host.array(-0.65)} if form == "fenchel" else {}
    blocks = np.zeros((20, 1))
    losses, gradients = host.blocks(objective, prior, {"loc": 0.8}, blocks, lambda p: fixed)
    assert_mean(gradients["loc"], 0.48, 0.004)
    values = losses[:, 0] - 0.5 * 0.8**2 - 0.5 * math.log(2 * math.pi)
    error = values.std() / math.sqrt(20)
    assert values.mean() == pytest.approx(-0.6501453659370776, abs=4 * error + 5e-5)


def test_batched_base(host):
    """Each element has a log-partition, and a learned log-normalizer."""
    loc, scale = np.array([0.0, 1.5]), np.array([0.7, 1.2])
    x = np.random.default_rng(1).normal(size=(3, 2))
    pairs = zip(loc, scale, strict=True)
    log_normalizers = [gaussian_log_normalizer(1.5, *pair) for pair in pairs]
    log_density = -0.5 * ((x - loc) / scale) ** 2 - np.log(scale * math.sqrt(2 * math.pi))
    exact = 0.75 * x**2 - log_density + log_normalizers

    def prior(p):
        base = host.dist.Normal(host.array(loc), host.array(scale))
        return host.ebm.EnergyBased(quadratic((0.0, 1.5)), base).expand((3, 2))

    for form in BOTH_FORMS:
        objective = host.ebm.KALE(form=form, num_samples=100_000)
        found = host.step(objective, prior, {"number": log_normalizers}, x, number_of(form))
        np.testing.assert_allclose(found.loss, exact, atol=0.015)
    np.testing.assert_allclose(found.gradients["number"], 0.0, atol=0.01)
    penalized = host.ebm.KALE(num_samples=10, gradient_penalty=1.0)
    assert host.loss(penalized, prior({}), x).shape == (3, 2)


@pytest.mark.parametrize(
    ("form", "expected"), [("donsker_varadhan", [(12, 2)]), ("fenchel", [(12, 2), (7, 2)])]
)
def test_calls_of_the_energy(host, form, expected):
    """In the Fenchel form a base that learns takes a call of its own."""
    seen = []

    def energy(x):
        seen.append(tuple(x.shape))
        return (x**2).sum(-1)

    def prior(p):
        return host.ebm.EnergyBased(energy, host.dist.Normal(p["loc"], 1.0).to_event(1))

    params = {"loc": np.zeros(2), "number": 0.0}
    objective = host.ebm.KALE(form=form, num_samples=7)
    host.step(objective, prior, params, np.ones((5, 2)), number_of(form))
    assert seen == expected


# --- the gradient penalty ---


def penalty(host, prior, params, x, **options):
    """The penalty by itself: the difference that it makes."""
    without, penalized = (
        host.step(host.ebm.KALE(gradient_penalty=weight, **options), prior, params, x)
        for weight in (0.0, 1.0)
    )
    return penalized - without


def test_penalty_of_a_linear_energy_is_its_squared_slope(host):
    def prior(p):
        base = host.dist.Normal(host.array([0.0, 0.0]), 1.0).to_event(1)
        return host.ebm.EnergyBased(lambda x: x @ p["slope"], base)

    slope = np.array([0.6, -0.3])
    found = penalty(host, prior, {"slope": slope}, np.ones((2, 3, 2)), num_samples=4)
    np.testing.assert_allclose(found.loss, np.full((2, 3), 0.45))
    np.testing.assert_allclose(found.gradients["slope"], 2 * slope)


@pytest.mark.parametrize(("x", "draw"), [(0.0, 2.0), (2.0, 0.0), (-2.0, 2.0)])
def test_penalty_is_taken_between_values_and_draws(host, x, draw):
    """At x + u (draw - x), u uniform: the mean square is 4/3, its variance 64/45, all three times.

    With x and draw at 0 and 2, 4 u^2 has mean 4/3 and variance 16 (1/5 - 1/9) = 64/45; with both
    ends at 2 in size, so has 4 (2 u - 1)^2.
    """

    def prior(p):
        return host.ebm.EnergyBased(quadratic(p["weights"]), host.Implicit(p["loc"], 0.0))

    params = {"weights": [0.0, 1.5], "loc": draw}
    found = penalty(host, prior, params, np.full(10_000, x), num_samples=10)
    mean, error = 1.5**2 * 4 / 3, 1.5**2 * math.sqrt(64 / 45) / 100
    assert found.loss.mean() == pytest.approx(mean, abs=4 * error)
    assert found.loss.std() == pytest.approx(100 * error, rel=0.05)
    by_curvature = found.gradients["weights"][1]
    assert by_curvature == pytest.approx(2 * found.loss.mean() / 1.5, rel=1e-9)
    assert found.gradients["loc"] == pytest.approx(0.0, abs=1e-12)


def test_penalty_takes_draws_in_turn(host):
    draws = np.array([5.0, -5.0, 1.0])

    def prior(p):
        return host.ebm.EnergyBased(quadratic((0.0, 1.0)), host.given_implicit(draws))

    found = penalty(host, prior, {}, np.zeros(3000), num_samples=3)
    np.testing.assert_allclose(found.loss.reshape(-1, 3).mean(0), draws**2 / 3, rtol=0.15)


# --- training ---


def log_normalizer_guide(host, site="x"):
    def guide(x):
        number = host.ppl.param("log_normalizer", host.array(0.0))
        host.ebm.attach(site, log_normalizer=number)

    return guide


@pytest.mark.once
@pytest.mark.parametrize("safe_gradient", [True, False])
def test_fenchel_form_fits_energy_and_log_normalizer(host, safe_gradient):
    """N(.7, .25) over N(0, 1): curvature 3, slope -2.8, A = .28685, F = KL = .56315 (5.2)."""

    def model(x):
        weights = host.ppl.param("weights", host.array([0.0, 0.0]))
        with host.ppl.plate("data", len(x)):
            base = host.dist.Normal(host.array(0.0), 1.0)
            host.ppl.sample("x", host.ebm.EnergyBased(quadratic(weights), base), obs=x)

    objective = host.ebm.KALE(form="fenchel", num_samples=2000, safe_gradient=safe_gradient)
    loss, guide = host.ebm.EnergyELBO(objective), log_normalizer_guide(host)
    x = host.array(normal_data(0.7, 0.5))
    found = host.fit(model, guide, loss, x, num_steps=300)
    np.testing.assert_allclose(found.mean("weights"), [-2.8, 3.0], atol=0.2)
    assert found.mean("log_normalizer") == pytest.approx(0.2868528194400546, abs=0.06)
    many = host.ebm.EnergyELBO(host.ebm.KALE(form="fenchel", num_samples=100_000))
    metrics = host.metrics(many, model, guide, x, found)
    # The loss is the negative log-likelihood: -F and the cross-entropy of data and base.
    cross_entropy = 0.5 * math.log(2 * math.pi) + 0.5 * (0.7**2 + 0.25)
    assert cross_entropy - metrics["objective"] == pytest.approx(0.56315, abs=0.03)
    assert metrics["normalizer_lag"] == pytest.approx(0.0, abs=0.06)
    assert set(metrics) == {"objective", "effective_normalizer_samples", *steps.METRICS}


@pytest.mark.parametrize("form", BOTH_FORMS)
def test_implicit_base_moves_onto_the_data(host, form):
    """Data at 1; a generator of the same spread that starts at -1."""

    def prior(p):
        return host.ebm.EnergyBased(quadratic(p["weights"]), host.Implicit(p["loc"], 0.5))

    objective = host.ebm.KALE(form=form, num_samples=500, gradient_penalty=0.5)
    params = {"weights": [0.0, 0.0], "loc": -1.0, "number": 0.0}
    options = {"num_steps": 200, "betas": (0.5, 0.9)}
    path = host.train(objective, prior, params, normal_data(1.0, 0.5), number_of(form), **options)
    assert path["loc"][-100:].mean() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("form", BOTH_FORMS)
def test_prior_of_a_linear_gaussian_model(host, form):
    def make_guide(toy):
        if form == "fenchel":
            attach = log_normalizer_guide(host, "z")
            return lambda: (attach(None), toy.guide())
        return toy.guide

    objective = host.ebm.KALE(form=form, num_samples=500)
    length = {"num_steps": 300, "num_averaged": 100, "learning_rate": 0.05}
    options = {"make_guide": make_guide, "objective": objective, "num_normalizer_samples": 0}
    found = truth.run(host, **length, **options)
    # Over seeds it has a deviation of 0.5 %.
    assert found["precision"] == pytest.approx(truth.PRECISION, rel=0.02)
    assert found["slope"] == pytest.approx(truth.SLOPE, abs=0.05)
    assert found["scale"] == pytest.approx(truth.SCALE, abs=0.05)


def test_pair_of_normals_as_in_the_paper(host):
    """Each is trained by likelihood, and A = -c by the bound."""
    c = 0.6

    def model(x):
        target = host.dist.Normal(host.ppl.param("target", host.array(-0.5)), 1.0)
        loc = host.ppl.param("base", host.array(0.8))
        held = host.dist.Normal(host.stop_gradient(loc), 1.0)

        def energy(x):
            return held.log_prob(x) - target.log_prob(x) + c

        with host.ppl.plate("data", len(x)):
            base = host.dist.Normal(loc, 1.0)
            host.ppl.sample("x", host.ebm.EnergyBased(energy, base), obs=x)

    objective = host.ebm.KALE(form="fenchel", base_loss="likelihood", num_samples=500)
    loss = host.ebm.EnergyELBO(objective, num_normalizer_samples=0)
    x = host.array(normal_data(0.3, 1.0))
    found = host.fit(model, log_normalizer_guide(host), loss, x, num_steps=200)
    means = [found.mean(name, 50) for name in ("target", "base", "log_normalizer")]
    np.testing.assert_allclose(means, [0.3, 0.3, -c], atol=0.02)


# --- errors ---


@pytest.mark.parametrize(
    ("options", "base", "number", "message"),
    [
        ({}, lambda host: None, None, "a base to draw from, got base=None"),
        ({}, lambda host: host.Unsampled(), None, "a base that can be sampled, got .*Unsampled"),
        ({"base_loss": "full"}, lambda host: host.Implicit(), None, "got 'full' for .*Implicit"),
        ({"base_loss": "likelihood"}, lambda host: host.Implicit(), None, "got 'likelihood' for"),
        ({"form": "fenchel"}, lambda host: host.Implicit(), None, "got form='fenchel' and none"),
        ({}, lambda host: host.Implicit(), 0.0, "varadhan' and one"),
        ({"form": "fenchel"}, lambda host: host.Implicit(), np.zeros(3), r"base, \(\), got .*3,"),
    ],
)
def test_bases_and_log_normalizers_that_do_not_fit(host, options, base, number, message):
    prior = host.ebm.EnergyBased(quadratic((0.0, 0.0)), base(host), event_shape=())
    attached = {} if number is None else {"log_normalizer": host.array(number)}
    with pytest.raises(ValueError, match=message):
        host.loss(host.ebm.KALE(**options), prior, np.zeros(3), **attached)
