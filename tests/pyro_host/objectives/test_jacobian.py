import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from helpers.jacobians import (
    CURVED_DEFICIT,
    CURVED_ENTROPY,
    ENTROPIES,
    SPREAD_ESTIMATES,
    SPREAD_TRUTH,
    curved,
    normal_entropy,
    normal_grid,
    spread,
)
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.objectives.jacobian import jacobian, smallest_singular_value

SMALLEST = {"method": "smallest_singular_value"}


def linear(matrix, dtype=torch.float64):
    matrix = torch.tensor(matrix, dtype=dtype)
    return lambda z: z @ matrix.T


# --- figures of the method page ---


@pytest.mark.parametrize(("matrix", "entropy", "with_the_smallest"), ENTROPIES)
def test_entropy_of_a_linear_generator(float64, matrix, entropy, with_the_smallest):
    num_dims = len(matrix)
    base, z = normal_entropy(num_dims), torch.randn(3, num_dims)
    options = [(entropy, {}), (with_the_smallest, SMALLEST)]
    options.append((with_the_smallest, {**SMALLEST, "num_iterations": 30}))
    for expected, method in options:
        found = base + ebm.log_det_jtj(linear(matrix), z, **method) / 2
        assert found.tolist() == pytest.approx([expected] * 3, abs=1e-6)


def test_entropy_of_a_curved_surface(float64):
    grid, masses = (torch.from_numpy(array) for array in normal_grid())

    def generator(z):
        return curved(torch, z)

    exact = masses @ ebm.log_det_jtj(generator, grid) / 2
    bound = masses @ ebm.log_det_jtj(generator, grid, **SMALLEST) / 2
    assert normal_entropy(2) + exact.item() == pytest.approx(CURVED_ENTROPY, abs=1e-6)
    assert (exact - bound).item() == pytest.approx(CURVED_DEFICIT, abs=1e-4)
    # In the plane, one step finds the smallest singular value.
    found = smallest_singular_value(generator, grid, num_iterations=1)
    assert torch.allclose(found, smallest_singular_value(generator, grid), rtol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_steps_are_no_bound(dtype):
    generator, z = linear(spread(784, 128, 100), dtype), torch.zeros(20, 128, dtype=dtype)
    for num_iterations in (0, 1, 2, 5):
        found = ebm.log_det_jtj(generator, z, num_iterations=num_iterations, **SMALLEST) / 2
        assert found.dtype == dtype
        assert found.mean().item() == pytest.approx(SPREAD_ESTIMATES[num_iterations], rel=0.1)
    exact = ebm.log_det_jtj(generator, z[:1]).item() / 2
    assert exact == pytest.approx(SPREAD_TRUTH, abs=0.05)


# --- values and gradients, for what generators are made of ---


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


def test_jacobian(generator):
    z = torch.randn(3, 2)
    units = torch.eye(2)[:, None].expand(2, 3, 2)
    columns = [slope(lambda: generator(z), [z], [unit]) for unit in units]
    found = jacobian(generator, z)
    assert torch.allclose(found, torch.stack(columns, -1), atol=1e-7)
    assert torch.allclose(ebm.log_det_jtj(generator, z), torch.logdet(found.mT @ found), rtol=1e-8)
    values = smallest_singular_value(generator, z)
    assert torch.allclose(values, torch.linalg.svdvals(found)[:, -1])


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


def test_only_what_asks_for_gradients_has_them(float64):
    net, z = perceptron(nn.Tanh()), torch.randn(3, 2)
    for method in ({}, SMALLEST, {**SMALLEST, "num_iterations": 2}, {"method": "stochastic"}):
        found = ebm.log_det_jtj(net, z, **method)
        assert {id(leaf) for leaf in leaves(found)} <= {id(p) for p in net.parameters()}
        assert found.requires_grad
        with torch.no_grad():
            assert not ebm.log_det_jtj(net, z, **method).requires_grad
    assert not ebm.log_det_jtj(torch.sinh, z).requires_grad


# --- stochastic ---


def test_the_mean_over_probes_is_exact_and_so_is_its_gradient(float64):
    net = perceptron(nn.Tanh(), nn.LayerNorm(6))
    z = torch.randn(1, 2).expand(4000, 2).clone().requires_grad_()
    drawn = ebm.log_det_jtj(net, z, method="stochastic", num_iterations=2)
    exact = ebm.log_det_jtj(net, z)
    gradients = [torch.autograd.grad(total.sum(), z)[0] for total in (drawn, exact)]
    for found, expected in [(drawn[:, None], exact[:, None]), gradients]:
        errors = (found - expected).detach()
        assert (errors.mean(0).abs() < 4 * errors.std(0) / 4000**0.5).all()
        assert (errors.std(0) > 1e-3).all()


def test_several_probes_are_averaged(float64):
    generator, z = linear(spread(12, 6, 10)), torch.zeros(1000, 6)
    one, many = (
        ebm.log_det_jtj(generator, z, method="stochastic", num_probes=num_probes)
        for num_probes in (1, 4)
    )
    assert many.shape == (1000,)
    assert many.var().item() == pytest.approx(one.var().item() / 4, rel=0.2)


def test_few_iterations_lie_above_on_average(float64):
    generator, z = linear(spread(24, 24, 100)), torch.zeros(400, 24)
    exact = ebm.log_det_jtj(generator, z[:1]).item()
    scores = {}
    for num_iterations in (4, 24):
        drawn = ebm.log_det_jtj(generator, z, method="stochastic", num_iterations=num_iterations)
        scores[num_iterations] = (drawn.mean().item() - exact) / (drawn.std().item() / 20)
    assert scores[4] > 4 > abs(scores[24])


# --- where rank is lost ---


@pytest.mark.parametrize("num_data", [2, 3])
def test_lost_rank(float64, num_data):
    weight = torch.randn(num_data, requires_grad=True)

    def generator(z):
        first, second = z[:, :1], z[:, 1:]
        return torch.cat([first + second, (second**2) * weight[1:]], -1)

    z = torch.tensor([[0.3, 0.0], [0.3, 0.5]], requires_grad=True)
    exact = ebm.log_det_jtj(generator, z)
    assert exact[0].item() == -np.inf
    assert exact[1].isfinite()
    stochastic = {"method": "stochastic", "num_probes": 20}
    for method in (SMALLEST, {**SMALLEST, "num_iterations": 2}, stochastic):
        found = ebm.log_det_jtj(generator, z, **method)
        assert found.isfinite().all()
        assert found[0] < -10
    # The other rows train on.
    gradients = torch.autograd.grad(exact.sum(), [z, weight])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[1].abs().sum() > 0


# --- what is refused ---


@pytest.mark.parametrize(
    ("shape", "generator", "message"),
    [
        ((4, 3), lambda z: z[:, :2], "at most as many latent as data dimensions, got 3 and 2"),
        ((4, 3), lambda z: z.sum(-1), r"the generator to map \(.*, 3\) to .*, got shape"),
        ((4, 3), lambda z: z[None], r"the generator to map \(.*, 3\) to .*, got shape"),
        ((3,), lambda z: z, r"latent values of shape \(N, d\), got shape \(3,\)"),
    ],
)
@pytest.mark.parametrize("method", ["exact", SMALLEST["method"], "stochastic"])
def test_wrong_shapes(shape, generator, message, method):
    with pytest.raises(ValueError, match=message):
        ebm.log_det_jtj(generator, torch.ones(shape), method=method)


def test_wrong_method():
    with pytest.raises(ValueError, match="`method` to be one of"):
        ebm.log_det_jtj(torch.sinh, torch.ones(2, 2), method="qr")
