import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from helpers.objectives.jacobian import *  # noqa: F403
from helpers.objectives.jacobian import SMALLEST
from torch import nn

import pyro_ebm.pyro as ebm


def perceptron(*activations):
    """From two dimensions to four, with the given layers in between."""
    return nn.Sequential(nn.Linear(2, 6), *activations, nn.Linear(6, 4))


def convolution():
    shapes = nn.Linear(2, 16), nn.Unflatten(1, (4, 2, 2))
    norms = nn.InstanceNorm2d(4, affine=True), nn.SiLU(), nn.GroupNorm(2, 4), nn.Tanh()
    return nn.Sequential(*shapes, nn.ConvTranspose2d(4, 4, 3, 2, 1, 1), *norms, nn.Flatten())


def flow():
    transform = zuko.flows.NSF(2, transforms=2, hidden_features=(8,))
    return lambda z: transform().transform.inv(z)


def param():
    weight = torch.randn(2, 4)

    def generator(z):
        scale = pyro.param("scale", torch.ones(4), constraint=dist.constraints.positive)
        return scale * (z @ pyro.param("weight", weight)).sinh()

    return generator


GENERATORS = {
    "tanh": lambda: perceptron(nn.Tanh()),
    "softplus": lambda: perceptron(nn.Softplus()),
    "silu": lambda: perceptron(nn.SiLU()),
    "elu": lambda: perceptron(nn.ELU()),
    "gelu": lambda: perceptron(nn.GELU()),
    "prelu": lambda: perceptron(nn.Tanh(), nn.PReLU(6)),
    "leaky": lambda: perceptron(nn.Softplus(), nn.LeakyReLU(0.1)),
    "gated": lambda: nn.Sequential(nn.Linear(2, 8), nn.GLU(), nn.Tanh()),
    "layer norm": lambda: perceptron(nn.Tanh(), nn.LayerNorm(6), nn.Tanh()),
    "convolution": convolution,
    "flow": flow,
    "param": param,
    "module": lambda: pyro.module("generator", perceptron(nn.Tanh())),
}


def leaves(result):
    """All tensors that a result has a gradient in, found from the outside."""
    waiting, seen = [result.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(parent for parent, _ in node.next_functions)
    return [node.variable for node in seen if hasattr(node, "variable")]


def slope(function, tensors, directions, step=1e-5):
    """Central difference of a function when tensors move."""
    values = []
    for sign in (step, -step):
        for tensor, direction in zip(tensors, directions, strict=True):
            tensor.data.add_(sign * direction)
        values.append(function().detach())
        for tensor, direction in zip(tensors, directions, strict=True):
            tensor.data.sub_(sign * direction)
    return (values[0] - values[1]) / (2 * step)


@pytest.fixture(params=GENERATORS)
def generator(request, float64):
    return GENERATORS[request.param]()


@pytest.mark.parametrize(
    "method", [{}, SMALLEST, {**SMALLEST, "num_iterations": 2}], ids=["exact", "svd", "lobpcg"]
)
def test_gradients(generator, method):
    z = torch.randn(3, 2, requires_grad=True)

    def total():
        return ebm.log_det_jtj(generator, z, **method).sum()

    result = total()
    tensors = leaves(result)
    assert any(tensor is z for tensor in tensors)
    assert len(tensors) > 1
    for tensor, gradient in zip(tensors, torch.autograd.grad(result, tensors), strict=True):
        direction = torch.randn_like(tensor)
        expected = slope(total, [tensor], [direction]).item()
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_gradients_only_where_required(float64):
    net, z = perceptron(nn.Tanh()), torch.randn(3, 2)
    for method in ({}, SMALLEST, {**SMALLEST, "num_iterations": 2}, {"method": "stochastic"}):
        found = ebm.log_det_jtj(net, z, **method)
        assert {id(leaf) for leaf in leaves(found)} <= {id(p) for p in net.parameters()}
        assert found.requires_grad
        with torch.no_grad():
            assert not ebm.log_det_jtj(net, z, **method).requires_grad
    assert not ebm.log_det_jtj(torch.sinh, z).requires_grad
