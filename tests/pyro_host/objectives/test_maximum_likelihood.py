import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.oracles import (
    LOG_NORMALIZER_QUARTIC,
    gaussian_tilt,
    quartic_likelihood,
    quartic_likelihood_gradient,
)
from pyro.infer import SVI
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm.core.infer.metrics import recorded_figures

pytestmark = pytest.mark.usefixtures("float64")

X = np.linspace(-1.5, 2, 6)


class Quartic(nn.Module):
    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return self.weight * x**4 / 4


def test_value_is_the_negative_log_likelihood():
    x, num_samples = torch.tensor(X), 400_000
    density = ebm.EnergyBased(Quartic(), dist.Normal(0.0, 1.0))
    loss = ebm.MaximumLikelihood(num_samples=num_samples).loss(density, x)
    exact = x**4 / 4 + x**2 / 2 + 0.5 * math.log(2 * math.pi) + LOG_NORMALIZER_QUARTIC
    # The weights exp(-x^4 / 4) are at most 1: their standard deviation is below 1/2.
    error = 0.5 / math.exp(LOG_NORMALIZER_QUARTIC) / math.sqrt(num_samples)
    torch.testing.assert_close(loss, exact, atol=4 * error, rtol=0)
    assert exact.mean().item() == pytest.approx(quartic_likelihood(X, 1.0, 0.0, 0.0), abs=1e-9)


def test_value_is_low_on_average():
    # A batch of equal bases has independent estimates.
    base = dist.Normal(torch.zeros(4000), 1.0)
    density = ebm.EnergyBased(lambda x: 15 * x**2, base)
    losses = ebm.MaximumLikelihood(num_samples=20).loss(density, torch.zeros(4000))
    exact = 0.5 * math.log(2 * math.pi) + gaussian_tilt(30.0, 0.0, 1.0)
    assert losses.mean().item() < exact - 4 * losses.std().item() / math.sqrt(4000)
    # Their exponential is right on average.
    ratios = torch.exp(losses - exact)
    error = ratios.std().item() / math.sqrt(4000)
    assert ratios.mean().item() == pytest.approx(1, abs=4 * error)


def test_gradients_in_energy_and_base():
    values = [0.8, 0.3, -0.2]
    energy = Quartic(values[0])
    loc, log_scale = (nn.Parameter(torch.tensor(value)) for value in values[1:])
    objective, blocks = ebm.MaximumLikelihood(num_samples=4000), []
    for _ in range(40):
        density = ebm.EnergyBased(energy, dist.Normal(loc, log_scale.exp()))
        loss = objective.loss(density, torch.tensor(X)).mean()
        blocks.append(torch.stack(torch.autograd.grad(loss, (energy.weight, loc, log_scale))))
    blocks = torch.stack(blocks)
    error = blocks.std(0) / math.sqrt(len(blocks))
    expected = torch.tensor(quartic_likelihood_gradient(X, *values))
    assert (error < 0.01).all()
    assert ((blocks.mean(0) - expected).abs() < 4 * error).all()


def test_each_element_of_a_batched_base_has_a_normalizer():
    loc, scale = torch.tensor([0.0, 1.5]), torch.tensor([0.7, 1.2])
    density = ebm.EnergyBased(lambda x: 0.75 * x**2, dist.Normal(loc, scale)).expand((3, 2))
    x = torch.randn(3, 2)
    loss = ebm.MaximumLikelihood(num_samples=200_000).loss(density, x)
    tilts = [gaussian_tilt(1.5, *pair) for pair in zip(loc.tolist(), scale.tolist(), strict=True)]
    exact = 0.75 * x**2 - dist.Normal(loc, scale).log_prob(x) + torch.tensor(tilts)
    torch.testing.assert_close(loss, exact, atol=0.01, rtol=0)


def test_one_call_of_the_energy_and_no_gradient_to_the_value():
    calls = []

    def energy(x):
        calls.append(x.shape)
        return x.square().sum(-1)

    density = ebm.EnergyBased(energy, dist.Normal(torch.zeros(2), 1.0).to_event(1))
    value = torch.randn(5, 2, requires_grad=True)
    assert not ebm.MaximumLikelihood(num_samples=7).loss(density, value).requires_grad
    assert calls == [(12, 2)]


def observed_model(energy):
    def model(x):
        pyro.module("energy", energy)
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(energy, dist.Normal(loc, 1.0)), obs=x)

    return model


class Quadratic(Quartic):
    def forward(self, x):
        return 0.5 * self.weight * x**2


def test_a_gaussian_is_recovered():
    energy = Quadratic(0.2)
    loss = ebm.EnergyELBO(ebm.MaximumLikelihood(), num_normalizer_samples=0)
    svi = SVI(observed_model(energy), lambda x: None, Adam({"lr": 0.05}), loss)
    x, path = 0.4 + math.sqrt(0.5) * torch.randn(1024), []
    for _ in range(200):
        svi.step(x)
        path.append((energy.weight.item(), pyro.param("loc").item()))
    weight, loc = (sum(column[-100:]) / 100 for column in zip(*path, strict=True))
    # A Gaussian of precision 1 + weight and mean loc / (1 + weight); over seeds they have
    # deviations of 0.7 % and 0.004.
    assert 1 + weight == pytest.approx(1 / x.var(correction=0).item(), rel=0.03)
    assert loc / (1 + weight) == pytest.approx(x.mean().item(), abs=0.016)


def test_figures_of_health():
    density = ebm.EnergyBased(Quadratic(3.0), dist.Normal(0.0, 1.0))
    with recorded_figures() as figures:
        ebm.MaximumLikelihood(num_samples=100_000).loss(density, torch.tensor(X))
    # (E w)^2 / E w^2 of w = exp(-3 x^2 / 2) under N(0, 1).
    expected = math.exp(2 * gaussian_tilt(3.0, 0.0, 1.0) - gaussian_tilt(6.0, 0.0, 1.0))
    assert figures["effective_samples"]().item() == pytest.approx(1e5 * expected, rel=0.02)
    assert set(figures) == {"energy_gap", "energy_scale", "effective_samples"}


class Implicit(dist.TorchDistribution):
    """Can be drawn from and has no density."""

    arg_constraints = {}

    def sample(self, sample_shape=()):
        return torch.zeros(sample_shape)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (None, "a base to draw from, got base=None"),
        (Implicit(validate_args=False), "a base with sample and log_prob, got Implicit"),
        (dist.ImproperUniform(dist.constraints.real, (), ()), "sample and log_prob, got Improper"),
    ],
)
def test_a_base_with_draws_and_density_is_needed(base, message):
    density = ebm.EnergyBased(Quartic(), base, event_shape=())
    with pytest.raises(ValueError, match=message):
        ebm.MaximumLikelihood().loss(density, torch.tensor(X))


@pytest.mark.parametrize("bad", [0, 2.5])
def test_wrong_arguments(bad):
    with pytest.raises(ValueError, match="`num_samples` to be an integer of at least 1"):
        ebm.MaximumLikelihood(num_samples=bad)
