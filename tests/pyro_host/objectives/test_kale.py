import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from helpers import kale_steps as steps
from helpers import linear_gaussian as truth
from helpers.linear_gaussian_pyro import Toy
from helpers.oracles import gaussian_tilt
from pyro.infer import SVI
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm.core.infer.metrics import recorded_figures

pytestmark = pytest.mark.usefixtures("float64")


class Quadratic(nn.Module):
    """Energy slope * x + curvature * x^2 / 2."""

    def __init__(self, slope=0.0, curvature=0.0):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([slope, curvature]))

    def forward(self, x):
        return torch.stack([x, x.square() / 2], -1) @ self.weights


class GivenNoise(dist.Normal):
    """A normal that is drawn from with the noise that both hosts are given."""

    def rsample(self, sample_shape=()):
        return self.loc + self.scale * torch.as_tensor(steps.NOISE)

    def sample(self, sample_shape=()):
        return self.rsample(sample_shape).detach()


class NotReparameterized(GivenNoise):
    has_rsample = False

    def rsample(self, sample_shape=()):
        return super().rsample(sample_shape).detach()


class Implicit(dist.TorchDistribution):
    """Noise, moved and stretched; nobody knows its density."""

    arg_constraints = {}
    has_rsample = True
    is_implicit = True
    support = dist.constraints.real

    def __init__(self, loc, scale=1.0, noise=torch.randn):
        super().__init__(validate_args=False)
        self.loc, self.scale, self.noise = loc, scale, noise

    def rsample(self, sample_shape=()):
        return self.loc + self.scale * self.noise(sample_shape)


def leaf(value):
    return nn.Parameter(torch.tensor(value))


# --- value and gradients ---


@pytest.mark.parametrize("reparameterized", [True, False])
@pytest.mark.parametrize("base_loss", steps.BASE_LOSSES)
@pytest.mark.parametrize("form", steps.FORMS)
def test_gradients_of_all_players_are_those_of_the_formula(form, base_loss, reparameterized):
    energy, base = Quadratic(*steps.THETA), [leaf(steps.LOC), leaf(steps.SCALE)]
    number = leaf(steps.LOG_NORMALIZER)
    objective = ebm.KALE(**steps.FORMS[form], base_loss=base_loss, num_base_samples=5)
    prior = ebm.EnergyBased(energy, (GivenNoise if reparameterized else NotReparameterized)(*base))
    learners = {"log_normalizer": number} if form.startswith("fenchel") else {}
    with recorded_figures() as figures:
        loss = objective.loss(prior, torch.as_tensor(steps.X), **learners)
    np.testing.assert_allclose(loss.detach(), steps.losses(form), atol=1e-12)
    leaves = [energy.weights, *base, number]
    found = torch.autograd.grad(loss.mean(), leaves, allow_unused=True, materialize_grads=True)
    expected = steps.gradients(form, base_loss, reparameterized=reparameterized)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-12)
    np.testing.assert_allclose(torch.stack(found[1:3]), expected[1], atol=1e-12)
    assert found[3].item() == pytest.approx(expected[2], abs=1e-12)
    assert ("normalizer_lag" in figures) == bool(learners)
    for name, figure in figures.items():
        assert figure().item() == pytest.approx(steps.FIGURES[name], abs=1e-12)


@pytest.mark.parametrize("form", steps.FORMS)
def test_an_implicit_base_has_no_density_in_its_loss(form):
    energy, base = Quadratic(*steps.THETA), [leaf(steps.LOC), leaf(steps.SCALE)]
    learners = {"log_normalizer": leaf(steps.LOG_NORMALIZER)} if "fenchel" in form else {}
    noise = torch.as_tensor(steps.NOISE)
    objective = ebm.KALE(**steps.FORMS[form])
    prior = ebm.EnergyBased(energy, Implicit(*base, lambda shape: noise))
    loss = objective.loss(prior, torch.as_tensor(steps.X), **learners)
    log_density = dist.Normal(steps.LOC, steps.SCALE).log_prob(torch.as_tensor(steps.X))
    expected = torch.as_tensor(steps.losses(form)) + log_density
    torch.testing.assert_close(loss.detach(), expected, rtol=0, atol=1e-12)
    found = torch.autograd.grad(loss.mean(), [energy.weights, *base])
    by_energy, by_base, _ = steps.gradients(form, "generalized", reparameterized=True)
    np.testing.assert_allclose(found[0], by_energy, atol=1e-12)
    np.testing.assert_allclose(torch.stack(found[1:]), by_base, atol=1e-12)


class Scored(dist.Normal):
    has_rsample = False


@pytest.mark.parametrize("family", [dist.Normal, Scored])
@pytest.mark.parametrize("form", ["donsker_varadhan", "fenchel"])
def test_the_base_feels_the_exact_log_partition(form, family):
    """Base N(.8, 1), E = 1.5 x^2 / 2: the derivative of -A is .48 (methods page, 5.3)."""
    loc, energy, objective = leaf(0.8), Quadratic(0.0, 1.5), None
    objective = ebm.KALE(form=form, num_base_samples=100_000, base_loss="generalized")
    learners = {"log_normalizer": torch.tensor(-0.65)} if form == "fenchel" else {}
    gradients, values = [], []
    for _ in range(20):
        prior = ebm.EnergyBased(energy, family(loc, 1.0))
        loss = objective.loss(prior, torch.zeros(1), **learners)
        gradients.append(torch.autograd.grad(loss.sum(), loc)[0])
        values.append(loss.detach() + dist.Normal(0.8, 1.0).log_prob(torch.zeros(1)))
    gradients, values = torch.stack(gradients), torch.stack(values)
    error = gradients.std().item() / math.sqrt(20)
    assert error < 0.002
    assert gradients.mean().item() == pytest.approx(0.48, abs=4 * error)
    error = values.std().item() / math.sqrt(20)
    assert values.mean().item() == pytest.approx(-0.6501453659370776, abs=4 * error + 2e-5)


def test_each_element_of_a_batched_base_has_a_log_partition():
    loc, scale = torch.tensor([0.0, 1.5]), torch.tensor([0.7, 1.2])
    prior = ebm.EnergyBased(Quadratic(0.0, 1.5), dist.Normal(loc, scale)).expand((3, 2))
    x = torch.randn(3, 2)
    tilts = [gaussian_tilt(1.5, *pair) for pair in zip(loc.tolist(), scale.tolist(), strict=True)]
    exact = 0.75 * x**2 - dist.Normal(loc, scale).log_prob(x) + torch.tensor(tilts)
    objective = ebm.KALE(num_base_samples=100_000)
    torch.testing.assert_close(objective.loss(prior, x).detach(), exact, atol=0.015, rtol=0)
    objective = ebm.KALE(form="fenchel", num_base_samples=100_000, gradient_penalty=1.0)
    numbers = torch.tensor(tilts, requires_grad=True)
    loss = objective.loss(prior, x, log_normalizer=numbers)
    assert loss.shape == (3, 2)
    without = ebm.KALE(form="fenchel", num_base_samples=100_000)
    loss = without.loss(prior, x, log_normalizer=numbers)
    torch.testing.assert_close(loss.detach(), exact, atol=0.015, rtol=0)
    (gradient,) = torch.autograd.grad(loss.sum(), numbers)
    torch.testing.assert_close(gradient, torch.zeros(2), atol=0.05, rtol=0)


@pytest.mark.parametrize(("form", "calls"), [("donsker_varadhan", [(12, 2)]), ("fenchel", 2)])
def test_calls_of_the_energy_and_no_gradient_to_the_value(form, calls):
    seen = []

    def energy(x):
        seen.append(tuple(x.shape))
        return x.square().sum(-1)

    base = dist.Normal(leaf([0.0, 0.0]), 1.0).to_event(1)
    value = torch.randn(5, 2, requires_grad=True)
    learners = {"log_normalizer": torch.tensor(0.0)} if form == "fenchel" else {}
    objective = ebm.KALE(form=form, num_base_samples=7)
    loss = objective.loss(ebm.EnergyBased(energy, base), value, **learners)
    # Of the Fenchel form, once more for a base that learns.
    assert seen == (calls if isinstance(calls, list) else [(12, 2), (7, 2)])
    loss.sum().backward()
    assert value.grad is None
    seen.clear()
    frozen = ebm.EnergyBased(energy, dist.Normal(torch.zeros(2), 1.0).to_event(1))
    assert not objective.loss(frozen, value, **learners).requires_grad
    assert seen == [(12, 2)]


# --- the gradient penalty ---


def penalty(energy, base, x, **options):
    """The penalty by itself: the difference that it makes."""
    prior = ebm.EnergyBased(energy, base)
    losses = []
    for weight in (0.0, 1.0):
        pyro.set_rng_seed(1)
        losses.append(ebm.KALE(gradient_penalty=weight, **options).loss(prior, x))
    return losses[1] - losses[0]


def test_penalty_of_a_linear_energy_is_its_squared_slope():
    slope = leaf([0.6, -0.3])
    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    found = penalty(lambda x: x @ slope, base, torch.randn(2, 3, 2), num_base_samples=4)
    torch.testing.assert_close(found.detach(), torch.full((2, 3), 0.45))
    (gradient,) = torch.autograd.grad(found.sum(), slope)
    torch.testing.assert_close(gradient, 12 * slope.detach())


@pytest.mark.parametrize(("x", "draw"), [(0.0, 2.0), (2.0, 0.0), (-2.0, 2.0)])
def test_penalty_is_taken_between_values_and_draws(x, draw):
    """At x + u (draw - x), u uniform: the mean square is 4/3, its variance 64/45, all three times.

    With x and draw at 0 and 2, 4 u^2 has mean 4/3 and variance 16 (1/5 - 1/9) = 64/45; with both
    ends at 2 in size, so has 4 (2 u - 1)^2.
    """
    energy, loc = Quadratic(0.0, 1.5), leaf(draw)
    base = Implicit(loc, 0.0)
    found = penalty(energy, base, torch.full((10_000,), x), num_base_samples=10)
    mean, error = 1.5**2 * 4 / 3, 1.5**2 * math.sqrt(64 / 45) / 100
    assert found.mean().item() == pytest.approx(mean, abs=4 * error)
    assert found.std().item() == pytest.approx(100 * error, rel=0.05)
    by_energy, by_base = torch.autograd.grad(found.mean(), [energy.weights, loc])
    assert by_energy[1].item() == pytest.approx(2 * found.mean().item() / 1.5, rel=1e-9)
    assert by_base.item() == pytest.approx(0.0, abs=1e-12)


def test_every_draw_has_its_turn_in_the_penalty():
    draws = torch.tensor([5.0, -5.0, 1.0])
    base = Implicit(0.0, 1.0, lambda shape: draws)
    found = penalty(Quadratic(0.0, 1.0), base, torch.zeros(3000), num_base_samples=3)
    means = found.reshape(-1, 3).mean(0)
    torch.testing.assert_close(means, draws**2 / 3, rtol=0.15, atol=0)


# --- training ---


def observed(energy, base):
    def model(x):
        if isinstance(energy, nn.Module):
            pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(energy, base()), obs=x)

    return model


def declare_log_normalizer(site):
    ebm.auxiliary(site, log_normalizer=pyro.param("log_normalizer", torch.tensor(0.0)))


def guide_of(form):
    def guide(x):
        if form == "fenchel":
            declare_log_normalizer("x")

    return guide


def normal_data(mean, scale, size=1000):
    """Of exactly this mean and standard deviation."""
    noise = torch.randn(size)
    return mean + scale * (noise - noise.mean()) / noise.std(correction=0)


@pytest.mark.parametrize("safe_gradient", [True, False])
def test_the_fenchel_form_fits_a_tilt_and_its_log_normalizer(safe_gradient):
    """N(.7, .25) over N(0, 1): curvature 3, slope -2.8, A = .28685, F = KL = .56315 (5.2)."""
    energy = Quadratic()
    objective = ebm.KALE(form="fenchel", num_base_samples=2000, safe_gradient=safe_gradient)
    loss = ebm.EnergyELBO(objective, num_normalizer_samples=0)
    model = observed(energy, lambda: dist.Normal(0.0, 1.0))
    svi = SVI(model, guide_of("fenchel"), Adam({"lr": 0.05}), loss)
    x, path = normal_data(0.7, 0.5), []
    for _ in range(300):
        svi.step(x)
        path.append([*energy.weights.tolist(), pyro.param("log_normalizer").item()])
    slope, curvature, log_normalizer = np.mean(path[-100:], axis=0)
    assert curvature == pytest.approx(3.0, abs=0.2)
    assert slope == pytest.approx(-2.8, abs=0.12)
    assert log_normalizer == pytest.approx(0.2868528194400546, abs=0.06)
    health = ebm.EnergyELBO(objective).health(model, guide_of("fenchel"), x)["x"]
    # The loss is the negative log-likelihood: -F and the cross-entropy of data and base.
    cross_entropy = 0.5 * math.log(2 * math.pi) + 0.5 * (0.7**2 + 0.25)
    assert cross_entropy - health["objective"].item() == pytest.approx(0.56315, abs=0.03)
    assert health["normalizer_lag"].item() == pytest.approx(0.0, abs=0.06)
    assert set(health) == {"objective", *steps.FIGURES}


@pytest.mark.parametrize("form", ["donsker_varadhan", "fenchel"])
def test_an_implicit_base_moves_onto_the_data(form):
    """Data at 1; a generator that starts at -1, its noise as wide."""
    energy, loc, number = Quadratic(), leaf(-1.0), leaf(0.0)
    objective = ebm.KALE(form=form, num_base_samples=500, gradient_penalty=0.5)
    prior = ebm.EnergyBased(energy, Implicit(loc, 0.5))
    learners = {"log_normalizer": number} if form == "fenchel" else {}
    optimizer = torch.optim.Adam([energy.weights, loc, number], lr=0.05, betas=(0.5, 0.9))
    x, path = normal_data(1.0, 0.5), []
    for _ in range(200):
        optimizer.zero_grad()
        objective.loss(prior, x, **learners).mean().backward()
        optimizer.step()
        path.append(loc.item())
    assert np.mean(path[-100:]) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("form", ["donsker_varadhan", "fenchel"])
def test_a_prior_in_a_linear_gaussian_model_is_recovered(form):
    torch.set_default_dtype(torch.float32)
    toy = Toy("plate")

    def guide():
        if form == "fenchel":
            declare_log_normalizer("z")
        toy.guide()

    loss = ebm.EnergyELBO(ebm.KALE(form=form, num_base_samples=500), num_normalizer_samples=0)
    svi = SVI(toy.model, guide, Adam({"lr": 0.05}), loss)
    path = []
    for _ in range(300):
        svi.step()
        path.append(1 / 16 + toy.energy.a.exp().item())
    # Over seeds it has a deviation of 0.5 %.
    assert np.mean(path[-100:]) == pytest.approx(truth.PRECISION, rel=0.02)
    assert pyro.param("slope").item() == pytest.approx(truth.SLOPE, abs=0.05)
    assert pyro.param("scale").item() == pytest.approx(truth.SCALE, abs=0.05)
    if form == "fenchel":
        log_normalizer = 0.5 * math.log(1 / 16 / truth.PRECISION)
        assert pyro.param("log_normalizer").item() == pytest.approx(log_normalizer, abs=0.05)


@pytest.mark.parametrize("form", ["donsker_varadhan", "fenchel"])
def test_a_frozen_base_stays_as_it_is(form):
    flow = zuko.flows.MAF(2, transforms=1, hidden_features=(4,)).requires_grad_(False).eval()
    before = [parameter.clone() for parameter in flow.parameters()]
    energy = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    start = energy[0].weight.detach().clone()

    def model(x):
        pyro.module("flow", flow)
        pyro.module("energy", energy)
        base, support = flow(), dist.constraints.real_vector
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(energy, base, support=support), obs=x)

    loss = ebm.EnergyELBO(ebm.KALE(form=form, num_base_samples=20, gradient_penalty=1.0))
    svi = SVI(model, guide_of(form), Adam({"lr": 0.1}), loss)
    for _ in range(3):
        svi.step(torch.randn(10, 2))
    for parameter, old in zip(flow.parameters(), before, strict=True):
        assert (parameter == old).all()
    assert not torch.allclose(energy[0].weight, start, atol=0.1)


# --- a pair of densities ---


def test_a_pair_of_flows_has_a_known_log_normalizer():
    """E = log g - log d + c over g: the model is d, and A = -c."""
    base, target = (zuko.flows.NSF(2, transforms=1, hidden_features=(4,)) for _ in range(2))
    for parameter in [*base.parameters(), *target.parameters()]:
        nn.init.normal_(parameter, std=0.1)
    c, x, real = 1.7, torch.randn(5, 2), dist.constraints.real_vector

    def energy(x):
        return base().log_prob(x) - target().log_prob(x) + c

    model = ebm.EnergyBased(energy, base(), support=real, log_normalizer=lambda: -c)
    torch.testing.assert_close(model.log_prob(x), target().log_prob(x))
    prior = ebm.EnergyBased(energy, base(), support=real)
    loss = ebm.KALE(num_base_samples=10_000).loss(prior, x)
    partition = ebm.log_normalizer(prior, method="importance", num_samples=10_000)
    assert partition.standard_error < 0.02
    tolerance = 4 * partition.standard_error.item()
    torch.testing.assert_close(loss, -target().log_prob(x), atol=tolerance, rtol=0)


def test_a_pair_of_normals_follows_the_paper():
    """Each is trained by likelihood, and so is A = -c by the bound."""
    target_loc, base_loc = leaf(-0.5), leaf(0.8)
    c = 0.6

    def model(x):
        target = dist.Normal(pyro.param("target", target_loc), 1.0)
        base = dist.Normal(pyro.param("base", base_loc), 1.0)
        held = dist.Normal(base_loc.detach(), 1.0)

        def energy(x):
            return held.log_prob(x) - target.log_prob(x) + c

        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(energy, base), obs=x)

    objective = ebm.KALE(form="fenchel", base_loss="likelihood", num_base_samples=500)
    loss = ebm.EnergyELBO(objective, num_normalizer_samples=0)
    svi = SVI(model, guide_of("fenchel"), Adam({"lr": 0.05}), loss)
    x, path = normal_data(0.3, 1.0), []
    for _ in range(200):
        svi.step(x)
        path.append([pyro.param(name).item() for name in ("target", "base", "log_normalizer")])
    assert np.mean(path[-50:], axis=0) == pytest.approx([0.3, 0.3, -c], abs=0.02)


# --- errors ---


class Unsampled(dist.TorchDistribution):
    """Has a density, no draws."""

    arg_constraints = {}

    def __init__(self):
        super().__init__(validate_args=False)


@pytest.mark.parametrize(
    ("options", "base", "learners", "message"),
    [
        ({}, None, {}, "a base to draw from, got base=None"),
        ({}, Unsampled(), {}, "a base that can be sampled, got Unsampled"),
        ({"base_loss": "full"}, Implicit(0.0), {}, "without a density, got 'full' for Implicit"),
        ({"base_loss": "likelihood"}, Implicit(0.0), {}, "without a density, got 'likelihood'"),
        ({"form": "fenchel"}, Implicit(0.0), {}, "got form='fenchel' and none"),
        ({}, Implicit(0.0), {"log_normalizer": torch.tensor(0.0)}, "varadhan' and one"),
        (
            {"form": "fenchel"},
            Implicit(0.0),
            {"log_normalizer": torch.zeros(3)},
            r"the batch shape of the base, \(\), got shape \(3,\)",
        ),
    ],
)
def test_what_does_not_go_together(options, base, learners, message):
    prior = ebm.EnergyBased(Quadratic(), base, event_shape=())
    with pytest.raises(ValueError, match=message):
        ebm.KALE(**options).loss(prior, torch.zeros(3), **learners)


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
