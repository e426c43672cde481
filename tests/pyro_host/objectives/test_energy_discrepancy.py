import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import shared_noise
from helpers.oracles import (
    FITTED_PRECISIONS,
    GAUSSIAN_VALUES,
    gaussian_discrepancy,
    gaussian_discrepancy_gradient,
)
from torch import nn

import pyro_ebm.pyro as ebm

pytestmark = pytest.mark.usefixtures("float64")


class Quadratic(nn.Module):
    def __init__(self, precision):
        super().__init__()
        self.precision = nn.Parameter(torch.tensor(precision))

    def forward(self, x):
        return 0.5 * self.precision * x.flatten(1).square().sum(-1)


def losses(a, sigma2, t, shape, num_data, *, num_negatives=256, stabilization=0.0):
    energy = Quadratic(a)
    objective = ebm.EnergyDiscrepancy(
        variance=t, num_negatives=num_negatives, stabilization=stabilization
    )
    x = math.sqrt(sigma2) * torch.randn(num_data, *shape)
    loss = objective.loss(ebm.EnergyBased(energy, event_shape=shape), x)
    (gradient,) = torch.autograd.grad(loss.mean(), energy.precision)
    return loss.detach(), gradient.item()


@pytest.mark.parametrize(("parameters", "value"), GAUSSIAN_VALUES.items())
def test_closed_form_has_the_stated_values(parameters, value):
    assert gaussian_discrepancy(*parameters) == pytest.approx(value, abs=1e-12)


# The log of a mean of M terms is low by half their relative variance over M (Jensen), which grows
# exponentially with dimension and variance: in 16 dimensions the noise is small.
@pytest.mark.parametrize(
    ("shape", "parameters"),
    [(shape, parameters) for shape in [(1,), (2,), (1, 2, 2)] for parameters in GAUSSIAN_VALUES]
    + [((16,), (1.0, 1.0, 0.1)), ((16,), (2.0, 1.0, 0.05)), ((16,), (3.0, 0.5, 0.04))],
)
def test_value_and_gradient_equal_the_closed_form(shape, parameters):
    dims = math.prod(shape)
    loss, gradient = losses(*parameters, shape, 4000)
    error = loss.std().item() / math.sqrt(4000)
    exact = dims * gaussian_discrepancy(*parameters)
    assert loss.mean().item() == pytest.approx(exact, abs=4 * error + 0.01 * dims)
    exact = dims * gaussian_discrepancy_gradient(*parameters)
    assert gradient == pytest.approx(exact, abs=0.03 * dims)


def fit(num_negatives, stabilization, variance=1.0, num_steps=600):
    """Fitted precision of data N(0, 1); mean of the last third of the steps."""
    energy = Quadratic(1.2)
    objective = ebm.EnergyDiscrepancy(
        variance=variance, num_negatives=num_negatives, stabilization=stabilization
    )
    optimizer = torch.optim.Adam([energy.precision], lr=0.02)
    x = torch.randn(8192, 1)
    x = (x - x.mean()) / x.std(unbiased=False)
    path = []
    for _ in range(num_steps):
        optimizer.zero_grad()
        objective.loss(ebm.EnergyBased(energy, event_shape=(1,)), x).mean().backward()
        optimizer.step()
        path.append(energy.precision.item())
    return sum(path[-200:]) / 200


@pytest.mark.parametrize("num_negatives", [1, 4, 16])
def test_precision_is_unbiased_at_stabilization_one(num_negatives):
    assert fit(num_negatives, 1.0) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("stabilization", "variance"), FITTED_PRECISIONS)
def test_other_stabilizations_lean_as_stated(stabilization, variance):
    expected = FITTED_PRECISIONS[stabilization, variance]
    assert fit(1, stabilization, variance) == pytest.approx(expected, rel=0.05)


def test_weights_of_a_well_separated_mixture_are_found():
    logit = nn.Parameter(torch.tensor(0.0))

    def energy(x):
        weights = torch.stack([nn.functional.logsigmoid(logit), nn.functional.logsigmoid(-logit)])
        components = dist.Normal(torch.tensor([-5.0, 5.0]), 1.0).log_prob(x)
        return -torch.logsumexp(weights + components, -1)

    x = torch.randn(4096, 1) + 5.0 - 10.0 * (torch.arange(4096)[:, None] % 5 == 0)
    objective = ebm.EnergyDiscrepancy(variance=32.0, num_negatives=16)
    optimizer = torch.optim.Adam([logit], lr=0.05)
    path = []
    for _ in range(200):
        optimizer.zero_grad()
        objective.loss(ebm.EnergyBased(energy, event_shape=(1,)), x).mean().backward()
        optimizer.step()
        path.append(torch.sigmoid(logit).item())
    assert sum(path[-100:]) / 100 == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(("num_negatives", "stabilization"), [(16, 1.0), (4, 0.5), (8, 0.0)])
def test_constant_energy(num_negatives, stabilization):
    objective = ebm.EnergyDiscrepancy(
        variance=1.0, num_negatives=num_negatives, stabilization=stabilization
    )
    flat = ebm.EnergyBased(lambda x: x[:, 0] * 0 + 3.0, event_shape=(2,))
    loss = objective.loss(flat, torch.randn(5, 2))
    expected = math.log((num_negatives + stabilization) / num_negatives)
    torch.testing.assert_close(loss, torch.full((5,), expected))


def test_the_base_counts():
    # Data N(0, 1/2) over a base N(0, 1): the energy must add precision 1, not 2.
    energy = Quadratic(0.2)
    prior = ebm.EnergyBased(energy, dist.Normal(torch.zeros(1), 1.0).to_event(1))
    objective = ebm.EnergyDiscrepancy(variance=0.5, num_negatives=8)
    x = torch.randn(8192, 1) * math.sqrt(0.5)
    optimizer = torch.optim.Adam([energy.precision], lr=0.02)
    path = []
    for _ in range(500):
        optimizer.zero_grad()
        objective.loss(prior, x).mean().backward()
        optimizer.step()
        path.append(energy.precision.item())
    expected = (1 / x.square().mean() - 1).item()
    assert sum(path[-200:]) / 200 == pytest.approx(expected, abs=0.05)


def test_one_call_of_the_energy_and_no_gradient_to_the_value():
    calls = []

    def energy(x):
        calls.append(len(x))
        return x.square().sum(-1)

    value = torch.randn(6, 2, requires_grad=True)
    objective = ebm.EnergyDiscrepancy(variance=1.0, num_negatives=4)
    assert not objective.loss(ebm.EnergyBased(energy, event_shape=(2,)), value).requires_grad
    assert calls == [30]


def test_constrained_support_is_perturbed_without_leaving_it():
    # Gamma(3, 1) as an energy over the flat measure on the half line, rate learned.
    rate = nn.Parameter(torch.tensor(2.0))
    density = ebm.EnergyBased(
        lambda x: rate * x - 2.0 * x.log(),
        event_shape=(),
        support=torch.distributions.constraints.positive,
    )
    x = dist.Gamma(3.0, 1.0).sample((8192,))
    objective = ebm.EnergyDiscrepancy(variance=0.5, num_negatives=8)
    optimizer = torch.optim.Adam([rate], lr=0.02)
    for _ in range(400):
        optimizer.zero_grad()
        objective.loss(density, x).mean().backward()
        optimizer.step()
    assert rate.item() == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "one of `variance` and `perturbation`, got neither"),
        (
            {"variance": 1.0, "perturbation": ebm.GaussianPerturbation(1.0)},
            "one of `variance` and `perturbation`, got both",
        ),
        ({"variance": 0.0}, "`variance` to be a positive number, got 0.0"),
        ({"variance": -1}, "`variance` to be a positive number, got -1"),
        ({"variance": float("nan")}, "`variance` to be a positive number, got nan"),
        ({"variance": 1.0, "num_negatives": 0}, "`num_negatives` to be an integer of at least 1"),
        ({"variance": 1.0, "num_negatives": 2.5}, "`num_negatives` to be an integer of at least 1"),
        ({"variance": 1.0, "stabilization": -0.1}, "`stabilization` to be a number of at least 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ebm.EnergyDiscrepancy(**arguments)


def test_perturbation_shares_one_hop_among_negatives():
    pyro.set_rng_seed(3)
    kernel = ebm.GaussianPerturbation(0.25)
    x = torch.zeros(20000, 1)
    y = kernel.forward(x)
    negatives = kernel.backward(y, 2)
    assert negatives.shape == (2, 20000, 1)
    assert negatives.var().item() == pytest.approx(0.5, rel=0.03)
    covariance = (negatives[0] * negatives[1]).mean().item()
    assert covariance == pytest.approx(0.25, rel=0.05)


class GivenNoise:
    """The noise that both hosts are given."""

    def __init__(self, dtype):
        self.dtype = dtype

    def forward(self, x):
        return torch.as_tensor(shared_noise.Y, dtype=self.dtype)

    def backward(self, y, num_negatives):
        return torch.as_tensor(shared_noise.NEGATIVES, dtype=self.dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_value_and_gradients_are_those_of_the_other_host(dtype, tolerance):
    w, b, v = (
        torch.tensor(array, dtype=dtype, requires_grad=True)
        for array in (shared_noise.W, shared_noise.B, shared_noise.V)
    )
    base = dist.Normal(torch.zeros(3, dtype=dtype), shared_noise.BASE_SCALE).to_event(1)
    prior = ebm.EnergyBased(lambda x: torch.tanh(x @ w.T + b) @ v, base)
    objective = ebm.EnergyDiscrepancy(
        num_negatives=shared_noise.NUM_NEGATIVES,
        stabilization=shared_noise.STABILIZATION,
        perturbation=GivenNoise(dtype),
    )
    loss = objective.loss(prior, torch.as_tensor(shared_noise.X, dtype=dtype))
    expected = torch.as_tensor(shared_noise.losses(), dtype=dtype)
    torch.testing.assert_close(loss, expected, atol=tolerance, rtol=tolerance)
    expected = shared_noise.gradients()
    for name, gradient in zip("wbv", torch.autograd.grad(loss.mean(), (w, b, v)), strict=True):
        torch.testing.assert_close(
            gradient, torch.as_tensor(expected[name], dtype=dtype), atol=tolerance, rtol=tolerance
        )
