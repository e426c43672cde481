import pyro
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from pyro_ebm.pyro.distributions.bound_energy import evaluate_energy, freeze_module, score_only

pytestmark = pytest.mark.usefixtures("float64")


class Quartic(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.5, 0.5]))

    def forward(self, x):
        return (self.weight * x.pow(4) + torch.tanh(self.weight * x)).sum(-1)


def test_energy_sees_one_batch_dimension():
    shapes = []

    def energy(x):
        shapes.append(x.shape)
        return x.sum((-1, -2, -3))

    value = torch.randn(5, 1, 4, 3, 8, 8)
    result = evaluate_energy(energy, value, torch.Size((3, 8, 8)))
    assert shapes == [(20, 3, 8, 8)]
    torch.testing.assert_close(result, value.sum((-1, -2, -3)))


def test_convolution_takes_any_batch_shape():
    energy = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 1), nn.Flatten(0))
    value = torch.randn(2, 3, 1, 8, 8)
    result = evaluate_energy(energy, value, torch.Size((1, 8, 8)))
    torch.testing.assert_close(result[1, 2], energy(value[1, 2][None])[0])
    assert evaluate_energy(energy, value[0, 0], torch.Size((1, 8, 8))).shape == ()


@pytest.mark.parametrize(
    ("energy", "got"),
    [
        (lambda x: x.sum(-1, keepdim=True), r"got shape \(7, 1\)"),
        (lambda x: x.sum(), r"got shape \(\)"),
        (lambda x: 0.0, "got float"),
    ],
)
def test_wrong_energy_shape_is_refused(energy, got):
    with pytest.raises(ValueError, match=r"Expected the energy to map .*" + got):
        evaluate_energy(energy, torch.randn(7, 2), torch.Size((2,)))


def test_wrong_event_shape_is_refused():
    with pytest.raises(ValueError, match=r"Expected a value of event shape \(3,\), got .*\(7, 2\)"):
        evaluate_energy(lambda x: x.sum(-1), torch.randn(7, 2), torch.Size((3,)))


def frozen(energy):
    """Both ways of holding parameters constant, for modules; the general one for functions."""
    if isinstance(energy, nn.Module):
        return freeze_module(energy)
    return energy


ENERGIES = {
    "module": lambda: Quartic(),
    "closure over a module": lambda: (lambda module: lambda x: module(x))(Quartic()),
    "bound method": lambda: Quartic().forward,
}


@pytest.mark.parametrize("name", ENERGIES)
def test_score_is_right_to_second_order_and_reaches_no_parameter(name):
    energy = ENERGIES[name]()
    reference = Quartic()
    value = torch.randn(3, 2, requires_grad=True)
    function = frozen(energy)

    def score(v):
        return score_only(function, v)[0]

    assert gradcheck(score, value)
    assert gradgradcheck(score, value)

    def third(f, v):
        (first,) = torch.autograd.grad(f(v).sum(), v, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), v, create_graph=True)
        return torch.autograd.grad(second.sum(), v)[0]

    torch.testing.assert_close(third(score, value), third(reference, value))
    score(value).sum().backward()
    torch.testing.assert_close(value.grad, torch.autograd.grad(reference(value).sum(), value)[0])
    for module in (energy, getattr(energy, "__self__", None)):
        if isinstance(module, nn.Module):
            assert module.weight.grad is None


def test_closure_leaks_no_gradient_into_its_module_at_any_order():
    module = Quartic()
    value = torch.randn(3, 2, requires_grad=True)
    result, held = score_only(lambda v: module(v), value)
    assert [id(x) for x in held] == [id(module.weight)]
    (first,) = torch.autograd.grad(result.sum(), value, create_graph=True)
    first.square().sum().backward()
    assert module.weight.grad is None
    assert value.grad is not None


def test_constant_value_gives_a_constant():
    module = Quartic()
    result, _ = score_only(lambda v: module(v), torch.randn(3, 2))
    assert not result.requires_grad


def test_pyro_parameters_are_held_constant_too():
    weight = pyro.param(
        "weight", torch.tensor(2.0), constraint=torch.distributions.constraints.positive
    )
    value = torch.randn(3, requires_grad=True)
    result, held = score_only(lambda v: weight * v.square(), value)
    result.sum().backward()
    assert len(held) == 1
    assert held[0].grad is None
    torch.testing.assert_close(value.grad, 4.0 * value.detach())


def test_a_latent_is_not_frozen_in_silence():
    latent = torch.tensor(0.3, requires_grad=True)
    with pytest.raises(ValueError, match="doubly intractable"):
        score_only(lambda v: latent.exp() * v.square(), torch.randn(3, requires_grad=True))


def test_spectral_norm_keeps_its_buffers():
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    freeze_module(layer)(torch.randn(3, 4))
    for name, buffer in layer.named_buffers():
        assert torch.equal(buffer, before[name]), name
    layer(torch.randn(3, 4))
    assert any(not torch.equal(b, before[name]) for name, b in layer.named_buffers())
