import math
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.oracles import pseudo_spherical_gradient
from pyro.infer import SVI
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.samplers import TransitionInfo

pytestmark = pytest.mark.usefixtures("float64")

X = torch.linspace(-2, 2, 8, dtype=torch.float64)


@dataclass(frozen=True)
class Walk:
    """A sampler without noise: a step of a fixed length, or, with None, to the potential there."""

    stride: float | None = 1.0
    num_steps: int = 1
    target_acceptance: float | None = None
    adapt_scale: bool = False

    def init(self, potential, position):
        return ebm.MALA(1.0).init(potential, position)

    def step(self, potential, state):
        leaks = self.stride is None
        position = potential(state.position) if leaks else state.position + self.stride
        sure = torch.ones_like(state.potential)
        return state._replace(position=position), TransitionInfo(sure, sure < 0)


class Bowl(nn.Module):
    """E(x) = weight x^2 / 2; remembers what it was evaluated at."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach())
        return 0.5 * self.weight * x**2


def flat(energy):
    return ebm.EnergyBased(energy, event_shape=())


def over_normal(energy, loc=0.0, scale=1.0):
    return ebm.EnergyBased(energy, dist.Normal(loc, scale))


def gradients(loss, *parameters):
    return torch.stack(torch.autograd.grad(loss, parameters)).detach()


def assert_mean(blocks, expected):
    """Whether independent estimates, shape ``(N, K)``, are right on average."""
    error = blocks.std(0) / math.sqrt(len(blocks))
    expected = torch.as_tensor(expected)
    assert (error < 0.05).all()
    assert ((blocks.mean(0) - expected).abs() < 4 * error).all(), (blocks.mean(0), expected)


# --- gradients ---


def test_gradient_is_that_of_the_likelihood():
    mu, log_scale = (nn.Parameter(torch.tensor(x)) for x in (0.4, math.log(1.2)))
    density = flat(lambda x: 0.5 * ((x - mu) / log_scale.exp()) ** 2)
    blocks = []
    for _ in range(40):
        x, draws = torch.randn(500) - 0.3, 0.4 + 1.2 * torch.randn(500)
        loss = ebm.ContrastiveDivergence().loss(density, x, chains=draws)
        assert loss.shape == (500,)
        blocks.append(gradients(loss.mean(), mu, log_scale))
    assert_mean(torch.stack(blocks), pseudo_spherical_gradient(0.0, 0.4, math.log(1.2)))


def test_gradient_in_the_base_is_that_of_the_likelihood():
    # The model is N(loc / 2, 1/2); x has mean 1 and variance 1.
    energy, loc = Bowl(), nn.Parameter(torch.tensor(0.5))
    blocks = []
    for _ in range(40):
        x, draws = torch.randn(500) + 1, 0.25 + math.sqrt(0.5) * torch.randn(500)
        objective = ebm.ContrastiveDivergence()
        loss = objective.loss(over_normal(energy, loc), x, chains=draws).mean()
        blocks.append(gradients(loss, energy.weight, loc))
    expected = [0.5 * (2 - 0.5 - 0.25**2), 0.25 - 1.0]
    assert_mean(torch.stack(blocks), expected)


def test_no_gradient_flows_through_the_sampler():
    energy, value = Bowl(0.7), X.clone().requires_grad_()
    objective = ebm.ContrastiveDivergence(sampler=Walk(None), start="data")
    loss = objective.loss(flat(energy), value).sum()
    # Each value x has the draw w x^2 / 2, whose own derivative in w is left out.
    expected = 0.5 * (X**2 - (0.35 * X**2) ** 2).sum()
    weight_gradient, value_gradient = torch.autograd.grad(
        loss, (energy.weight, value), allow_unused=True
    )
    torch.testing.assert_close(weight_gradient, expected)
    assert value_gradient is None


def test_each_element_of_a_batched_base_has_draws_of_its_own():
    energy, loc = Bowl(), nn.Parameter(torch.tensor([-2.0, 3.0]))
    value = X.reshape(4, 2)
    objective = ebm.ContrastiveDivergence(sampler=Walk(0.5), num_steps=2)
    distribution = over_normal(energy, loc, 0.5).expand((4, 2))
    loss = objective.loss(distribution, value)
    draws = energy.seen[-1][8:].reshape(4, 2)
    assert loss.shape == (4, 2)
    assert ((draws - 1 - loc).abs() < 3).all()
    found = torch.autograd.grad(loss.sum(), (energy.weight, loc))
    torch.testing.assert_close(found[0], 0.5 * (value**2 - draws**2).sum())
    # U has the derivative -4 (x - loc) in loc, as the base has the scale 1/2.
    torch.testing.assert_close(found[1], 4 * (draws - value).sum(0))


def test_energy_penalty():
    energy, draws = Bowl(0.7), torch.tensor([1.0, 3.0])

    def loss_and_gradient(penalty):
        objective = ebm.ContrastiveDivergence(energy_penalty=penalty)
        loss = objective.loss(over_normal(energy), X, chains=draws)
        return torch.stack([loss.detach().mean(), *gradients(loss.mean(), energy.weight)])

    fourth = (X**4).mean() + (draws**4).mean()
    expected = 0.3 * torch.stack([0.7**2 * fourth / 4, 0.7 * fourth / 2])
    torch.testing.assert_close(loss_and_gradient(0.3) - loss_and_gradient(0.0), expected)


# --- draws ---


@pytest.mark.parametrize(("num_negatives", "expected"), [(None, 8), (3, 3)])
def test_draws_take_the_steps_asked_for_and_the_energy_one_call(num_negatives, expected):
    energy = Bowl()
    objective = ebm.ContrastiveDivergence(
        sampler=ebm.MALA(0.1), num_steps=5, num_negatives=num_negatives
    )
    objective.loss(over_normal(energy), X)
    # One at the start and one a step for the sampler; the last has values and draws.
    assert [len(x) for x in energy.seen] == 6 * [expected] + [8 + expected]


@pytest.mark.parametrize(("num_steps", "distance"), [(None, 2.0), (5, 5.0)])
@pytest.mark.parametrize(("start", "at"), [("data", X), ("base", 100 + 0 * X)])
def test_where_draws_start(num_steps, distance, start, at):
    energy = Bowl()
    objective = ebm.ContrastiveDivergence(
        sampler=Walk(num_steps=2), num_steps=num_steps, start=start
    )
    objective.loss(over_normal(energy, 100.0, 1e-9), X)
    torch.testing.assert_close(energy.seen[-1], torch.cat([X, at + distance]))


def test_each_value_has_the_draw_that_started_at_it():
    loss = ebm.ContrastiveDivergence(sampler=Walk(), start="data").loss(flat(Bowl()), X)
    torch.testing.assert_close(loss.detach(), X**2 / 2 - (X + 1) ** 2 / 2)


def test_the_sampler_of_the_distribution_is_the_default():
    energy = Bowl()
    distribution = ebm.EnergyBased(energy, dist.Normal(0.0, 1e-9), sampler=Walk(7.0))
    ebm.ContrastiveDivergence(num_negatives=2).loss(distribution, X)
    torch.testing.assert_close(energy.seen[-1][8:], torch.full((2,), 7.0))


def test_a_single_value_has_two_draws():
    energy = Bowl()
    ebm.ContrastiveDivergence(sampler=Walk()).loss(over_normal(energy), X[0])
    assert len(energy.seen[-1]) == 3


# --- training ---


def observed_model(energy, base=dist.Normal(0.0, 1.0)):  # noqa: B008
    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(energy, base), obs=x)

    return model


def empty_guide(**learners):
    return lambda x: ebm.auxiliary("x", **learners)


@pytest.mark.parametrize(
    ("options", "buffer_size"),
    [
        ({"start": "data", "num_steps": 1}, None),
        ({"start": "base"}, None),
        ({}, 256),
        ({}, 1024),
    ],
)
def test_a_gaussian_is_recovered(options, buffer_size):
    energy, sampler = Bowl(0.2), ebm.MALA(0.4, num_steps=3)
    chains = buffer_size and ebm.PersistentChains(
        256, (), sampler=sampler, buffer_size=buffer_size, restart_probability=0.05
    )
    guide = empty_guide(**({"chains": chains} if chains else {}))
    objective = ebm.ContrastiveDivergence(sampler=sampler, **options)
    loss = ebm.EnergyELBO(objective, num_normalizer_samples=0)
    svi = SVI(observed_model(energy), guide, Adam({"lr": 0.05}), loss)
    x, path = math.sqrt(0.5) * torch.randn(1024), []
    for _ in range(200):
        svi.step(x)
        path.append(1 + energy.weight.item())
    # The base has precision 1, the data have 2. Over seeds the mean has a deviation of 0.8 %.
    assert sum(path[-100:]) / 100 == pytest.approx(1 / x.square().mean().item(), rel=0.03)


def test_figures_of_health():
    energy = Bowl()
    loss = ebm.EnergyELBO(ebm.ContrastiveDivergence(sampler=Walk(), start="data"))
    figures = loss.health(observed_model(energy), empty_guide(), X)["x"]
    values, draws = 0.5 * X**2, 0.5 * (X + 1) ** 2
    torch.testing.assert_close(figures["energy_gap"], (draws - values).mean())
    expected = torch.cat([values, draws]).std(correction=0)
    torch.testing.assert_close(figures["energy_scale"], expected)
    # The base N(0, 1) doubles the potential, and nothing is known of the likelihood.
    torch.testing.assert_close(figures["objective"], 2 * (values - draws).mean())
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
        ebm.ContrastiveDivergence().loss(over_normal(Bowl()), X, chains=torch.zeros(4, 1))
