import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroSample
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

import pyro_ebm.pyro as ebm
from pyro_ebm.core.distributions.context import evaluate
from pyro_ebm.pyro.distributions.bound_energy import (
    frozen_in_parameters,
    held,
)

pytestmark = pytest.mark.usefixtures("float64")


class Quartic(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.5, 0.5]))

    def forward(self, x):
        return (self.weight * x.pow(4) + torch.tanh(self.weight * x)).sum(-1)


def test_convolution_of_any_batch_shape():
    energy = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 1), nn.Flatten(0))
    value = torch.randn(2, 3, 1, 8, 8)
    image = ebm.EnergyBased(energy, event_shape=(1, 8, 8))
    result = evaluate(image, energy, value)
    torch.testing.assert_close(result[1, 2], energy(value[1, 2][None])[0])


# --- parameters held constant ---


def frozen(energy):
    """Both ways of holding parameters constant, for modules; the general one for functions."""

    def frozen_energy(x):
        with held(energy):
            return energy(x)

    return frozen_energy


ENERGIES = {
    "module": lambda: Quartic(),
    "closure over a module": lambda: (lambda module: lambda x: module(x))(Quartic()),
    "bound method": lambda: Quartic().forward,
}


@pytest.mark.parametrize("name", ENERGIES)
def test_derivatives(name):
    energy = ENERGIES[name]()
    reference = Quartic()
    value = torch.randn(3, 2, requires_grad=True)
    function = frozen(energy)

    def evaluate(v):
        return frozen_in_parameters(function, v)[0]

    assert gradcheck(evaluate, value)
    assert gradgradcheck(evaluate, value)

    def third(f, v):
        (first,) = torch.autograd.grad(f(v).sum(), v, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), v, create_graph=True)
        return torch.autograd.grad(second.sum(), v)[0]

    torch.testing.assert_close(third(evaluate, value), third(reference, value))
    evaluate(value).sum().backward()
    torch.testing.assert_close(value.grad, torch.autograd.grad(reference(value).sum(), value)[0])
    for module in (energy, getattr(energy, "__self__", None)):
        if isinstance(module, nn.Module):
            assert module.weight.grad is None


def test_second_derivatives_of_a_closure_reach_no_parameter():
    module = Quartic()
    value = torch.randn(3, 2, requires_grad=True)
    result, held = frozen_in_parameters(lambda v: module(v), value)
    assert [id(x) for x in held] == [id(module.weight)]
    (first,) = torch.autograd.grad(result.sum(), value, create_graph=True)
    first.square().sum().backward()
    assert module.weight.grad is None
    assert value.grad is not None


def test_constant_value():
    module = Quartic()
    result, _ = frozen_in_parameters(lambda v: module(v), torch.randn(3, 2))
    assert not result.requires_grad


def test_parameters_of_the_store():
    weight = pyro.param("weight", torch.tensor(2.0), constraint=dist.constraints.positive)
    value = torch.randn(3, requires_grad=True)
    result, held = frozen_in_parameters(lambda v: weight * v.square(), value)
    result.sum().backward()
    assert len(held) == 1
    assert held[0].grad is None
    torch.testing.assert_close(value.grad, 4.0 * value.detach())


def test_latent_in_the_energy():
    latent, value = torch.tensor(0.3, requires_grad=True), torch.randn(3, requires_grad=True)
    with pytest.raises(ValueError, match="doubly intractable"):
        frozen_in_parameters(lambda v: latent.exp() * v.square(), value)


def test_buffers_of_spectral_norm():
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    with held(layer):
        layer(torch.randn(3, 4))
    for name, buffer in layer.named_buffers():
        assert torch.equal(buffer, before[name]), name
    layer(torch.randn(3, 4))
    assert any(not torch.equal(b, before[name]) for name, b in layer.named_buffers())


# --- bound when it is written ---


def test_sampled_weights_are_those_of_the_run():
    class Sampled(PyroModule):
        def __init__(self):
            super().__init__()
            self.precision = PyroSample(dist.Gamma(2.0, 0.5))

        def forward(self, x):
            return self.precision * x**2 / 2

    def log_normalizer():
        return 0.5 * math.log(2 * math.pi) - 0.5 * energy.precision.log()

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.energy = Sampled()

        def forward(self):
            return ebm.EnergyBased(self.energy, event_shape=(), log_normalizer=log_normalizer)

    model, x = Model(), torch.tensor(3.0)
    energy = model.energy
    with pyro.poutine.trace() as recorded:
        distribution = model()
    precision = recorded.trace.nodes["energy.precision"]["value"]
    for _ in range(3):
        exact = dist.Normal(0.0, precision**-0.5).log_prob(x)
        torch.testing.assert_close(distribution.log_prob(x), exact)
    with pytest.raises(ValueError, match=r"sampled \['precision'\]: .* doubly intractable"):
        ebm.EnergyBased(energy, event_shape=())
