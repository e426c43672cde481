import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.objectives.score_matching import *  # noqa: F403
from helpers.objectives.score_matching import METHODS, every_method
from pyro.distributions import constraints
from pyro.infer import SVI
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.distributions.graph import graph_leaves
from pyro_ebm.pyro.samplers.target import ANCHOR

EXACT, SLICED, DENOISING = (make(ebm) for make in METHODS.values())


def real(energy, shape, base=None):
    return ebm.EnergyBased(energy, base, event_shape=shape)


def tail(num_features=8):
    return nn.Tanh(), nn.Linear(num_features, 1), nn.Flatten(0)


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(24, 1), nn.Flatten(0)
    )


def loss_by_hessians(potential, x):
    """Exact losses from the full Hessian of each value by itself."""
    losses = []
    for row in x:
        gradient, hessian = (
            derivative(lambda row: potential(row[None])[0], row, create_graph=True)
            for derivative in (
                torch.autograd.functional.jacobian,
                torch.autograd.functional.hessian,
            )
        )
        trace = hessian.reshape(row.numel(), row.numel()).trace()
        losses.append(0.5 * gradient.square().sum() - trace)
    return torch.stack(losses)


class Normed(nn.Module):
    """No forward derivative of its gradient exists in torch, or a wrong one."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        hidden = self.layer(x.flatten(1))
        blocks = hidden.reshape(-1, 3, 2)[:, :2] + 3 * torch.eye(2)
        return hidden.norm(dim=-1) + nn.functional.glu(hidden).sum(-1) + torch.logdet(blocks).sin()


def mixture_base():
    components = dist.Normal(torch.randn(2, 1, 2, 3), 1.0).to_event(3)
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), components)


@pytest.mark.parametrize(
    ("energy", "base"),
    [
        (convolutional, None),
        (convolutional, mixture_base),
        (Normed, None),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.GroupNorm(1, 8), *tail()), None),
        (lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6).eval(), *tail(6)), None),
    ],
)
def test_exact_loss_is_that_of_full_hessians(energy, base):
    energy, x = energy(), torch.randn(4, 1, 2, 3)
    support = constraints.independent(constraints.real, 3)
    prior = ebm.EnergyBased(energy, base and base(), event_shape=(1, 2, 3), support=support)
    losses = EXACT.loss(prior, x).value, loss_by_hessians(prior.potential, x)
    torch.testing.assert_close(*losses, atol=1e-10, rtol=1e-10)
    parameters = list(energy.parameters())
    gradients = (
        torch.autograd.grad(loss.sum(), parameters, materialize_grads=True, allow_unused=True)
        for loss in losses
    )
    torch.testing.assert_close(*gradients, atol=1e-10, rtol=1e-10)


def test_support_of_fewer_dimensions_than_its_values():
    prior = ebm.EnergyBased(lambda x: x[:, 0] ** 2, dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0])))
    x, bijection = prior.base.sample((5,)), torch.distributions.biject_to(prior.support)

    def potential(u):
        simplex = bijection(u)
        return prior.potential(simplex) - bijection.log_abs_det_jacobian(u, simplex)

    expected = loss_by_hessians(potential, bijection.inv(x))
    torch.testing.assert_close(EXACT.loss(prior, x).value, expected.detach())


@pytest.mark.parametrize("layer", [nn.LayerNorm(2, dtype=torch.float64), nn.InstanceNorm1d(4)])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.Identity])
def test_layers_whose_third_derivatives_torch_has_wrong(layer, activation):
    net = nn.Sequential(
        nn.Linear(3, 8), nn.Unflatten(1, (4, 2)), layer, nn.Flatten(), activation(), *tail()
    )
    prior, x = real(net, (3,)), torch.randn(4, 3)
    for objective in (EXACT, SLICED):
        with pytest.raises(ValueError, match="without LayerNorm and InstanceNorm, got Native"):
            objective.loss(prior, x)
    DENOISING.loss(prior, x).value.sum().backward()
    with torch.no_grad():
        value = EXACT.loss(prior, x).value
    torch.testing.assert_close(value, loss_by_hessians(prior.potential, x).detach())


@every_method
def test_values_without_gradients(method):
    prior, x = real(convolutional(), (1, 2, 3)), torch.randn(4, 1, 2, 3)
    pyro.set_rng_seed(0)
    with torch.no_grad():
        value = METHODS[method](ebm).loss(prior, x).value
    pyro.set_rng_seed(0)
    loss = METHODS[method](ebm).loss(prior, x).value
    assert loss.requires_grad
    assert not value.requires_grad
    torch.testing.assert_close(value, loss.detach())


@every_method
def test_all_parameters_move_but_an_additive_one(method):
    """Of a module with a parametrization, and of the base."""
    first = nn.utils.parametrizations.spectral_norm(nn.Linear(2, 4))
    net, x = nn.Sequential(first, *tail(4)), torch.randn(8, 2)

    def model():
        pyro.module("net", net)
        base = dist.Normal(torch.zeros(2), pyro.param("scale", torch.tensor(3.0))).to_event(1)
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(net, base), obs=x)

    before = {name: parameter.clone() for name, parameter in net.named_parameters()}
    loss = ebm.EnergyELBO(METHODS[method](ebm), num_normalizer_samples=0)
    SVI(model, lambda: None, Adam({"lr": 0.1}), loss).step()
    unchanged = [name for name, new in net.named_parameters() if torch.equal(new, before[name])]
    assert unchanged == ["2.bias"]
    assert pyro.param("scale").item() != 3.0


@pytest.mark.parametrize("objective", [EXACT, SLICED, DENOISING])
def test_only_parameters_are_leaves_of_a_loss(objective):
    energy = nn.Sequential(nn.Linear(2, 8), *tail())
    loss = objective.loss(real(energy, (2,)), torch.randn(5, 2)).value
    assert set(graph_leaves(loss)) <= set(energy.parameters())
    loss.sum().backward()
    assert ANCHOR.grad is None


@pytest.mark.parametrize("objective", [EXACT, SLICED, DENOISING])
def test_inside_of_transforms(objective):
    """Gradients of several energies at once are those of one by one."""
    x, weights = torch.randn(5, 2), torch.randn(3, 2)

    def loss(weight):
        pyro.set_rng_seed(0)
        bent = real(lambda x: torch.tanh(x @ weight), (2,))
        return objective.loss(bent, x).value.sum()

    together = torch.func.vmap(torch.func.grad(loss), randomness="same")(weights)
    leaves = [weight.clone().requires_grad_() for weight in weights]
    alone = [torch.autograd.grad(loss(leaf), leaf)[0] for leaf in leaves]
    torch.testing.assert_close(together, torch.stack(alone))


def test_metrics_under_no_grad_keep_no_graph():
    energy = nn.Sequential(nn.Linear(2, 8), *tail())
    with torch.no_grad():
        loss = SLICED.loss(real(energy, (2,)), torch.randn(5, 2)).value
    assert not loss.requires_grad
