import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import quadratic_energy, tanh_energy
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm

pytestmark = pytest.mark.usefixtures("float64")

EXACT = ebm.ScoreMatching("exact")
SLICED = ebm.ScoreMatching("sliced")
METHODS = {
    "exact": EXACT,
    "sliced": SLICED,
    "denoising": ebm.ScoreMatching("denoising", variance=0.1),
}


def real(energy, shape, base=None):
    return ebm.EnergyBased(energy, base, event_shape=shape)


# --- closed forms ---


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@pytest.mark.parametrize("shape", tanh_energy.SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_value_and_gradients_are_those_by_hand(method, shape, dtype, tolerance):
    x, arrays = tanh_energy.data(shape), tanh_energy.parameters(math.prod(shape))
    tensors = {
        name: torch.tensor(array, dtype=dtype, requires_grad=True) for name, array in arrays.items()
    }
    w, b, v, scale = tensors.values()
    base = dist.Normal(torch.zeros(shape, dtype=dtype), scale).to_event(len(shape))
    prior = ebm.EnergyBased(lambda x: torch.tanh(x.flatten(1) @ w.T + b) @ v, base)
    value = torch.tensor(x, dtype=dtype)
    num_projections = tanh_energy.NUM_PROJECTIONS

    pyro.set_rng_seed(1)
    if method == "exact":
        objective, expected = EXACT, tanh_energy.exact(x, arrays)
    elif method == "sliced":
        objective = ebm.ScoreMatching("sliced", num_projections=num_projections)
        signs = 2 * torch.randint(2, (num_projections, *x.shape)) - 1
        expected = tanh_energy.sliced(x, signs.numpy(), arrays)
    else:
        objective = ebm.ScoreMatching("denoising", variance=tanh_energy.VARIANCE)
        expected = tanh_energy.denoising(x, torch.randn_like(value).numpy(), arrays)

    pyro.set_rng_seed(1)
    loss = objective.loss(prior, value)
    assert loss.dtype == dtype
    torch.testing.assert_close(
        loss, torch.tensor(expected[0], dtype=dtype), atol=tolerance, rtol=tolerance
    )
    gradients = torch.autograd.grad(loss.sum(), list(tensors.values()))
    for name, gradient in zip(tensors, gradients, strict=True):
        by_hand = torch.tensor(expected[1][name], dtype=dtype)
        torch.testing.assert_close(gradient, by_hand, atol=tolerance, rtol=tolerance)


def quadratic(amplitude, shape):
    A = torch.tensor(quadratic_energy.matrix(math.prod(shape)))
    return real(lambda x: 0.5 * amplitude * (x.flatten(1) @ A * x.flatten(1)).sum(-1), shape)


@pytest.mark.parametrize("shape", quadratic_energy.SHAPES)
def test_exact_and_sliced_losses_of_a_quadratic_energy(shape):
    a = torch.tensor(quadratic_energy.AMPLITUDE, requires_grad=True)
    x = quadratic_energy.data(shape)[:1]
    loss, slope = quadratic_energy.exact(x)
    found = EXACT.loss(quadratic(a, shape), torch.tensor(x))
    (gradient,) = torch.autograd.grad(found.sum(), a)
    assert found.item() == pytest.approx(loss.item(), abs=1e-10)
    assert gradient.item() == pytest.approx(slope.item(), abs=1e-10)

    error = quadratic_energy.sliced_error(math.prod(shape), 4000)
    found = ebm.ScoreMatching("sliced", num_projections=4000).loss(
        quadratic(a, shape), torch.tensor(x)
    )
    (gradient,) = torch.autograd.grad(found.sum(), a)
    assert found.item() == pytest.approx(loss.item(), abs=4 * error * a.item() + 1e-10)
    assert gradient.item() == pytest.approx(slope.item(), abs=4 * error + 1e-10)


@pytest.mark.parametrize("shape", quadratic_energy.SHAPES)
def test_denoising_loss_of_a_quadratic_energy(shape):
    x = quadratic_energy.data(shape)
    repeated = torch.tensor(x).expand(4000, *x.shape)
    a = torch.full((4000 * len(x),), quadratic_energy.AMPLITUDE, requires_grad=True)
    objective = ebm.ScoreMatching("denoising", variance=quadratic_energy.VARIANCE)
    found = objective.loss(quadratic(a, shape), repeated)
    (gradient,) = torch.autograd.grad(found.sum(), a)
    pairs = zip((found, gradient.view_as(found)), quadratic_energy.denoising(x), strict=True)
    for draws, expected in pairs:
        error = draws.std(0) / math.sqrt(4000)
        assert ((draws.mean(0) - torch.tensor(expected)).abs() < 4 * error).all()


def test_one_random_sign_vector_gives_the_trace_of_a_diagonal_hessian():
    prior = real(lambda x: x.pow(4).sum(-1), (16,))
    x = torch.randn(7, 16)
    torch.testing.assert_close(SLICED.loss(prior, x), EXACT.loss(prior, x), atol=0, rtol=1e-13)


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
def test_exact_loss_and_gradients_are_those_of_full_hessians(energy, base):
    energy, x = energy(), torch.randn(4, 1, 2, 3)
    support = constraints.independent(constraints.real, 3)
    prior = ebm.EnergyBased(energy, base and base(), event_shape=(1, 2, 3), support=support)
    loss, expected = EXACT.loss(prior, x), loss_by_hessians(prior.potential, x)
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=1e-10)
    parameters = list(energy.parameters())
    found, expected = (
        torch.autograd.grad(x.sum(), parameters, materialize_grads=True, allow_unused=True)
        for x in (loss, expected)
    )
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


def tail(num_features=8):
    return nn.Tanh(), nn.Linear(num_features, 1), nn.Flatten(0)


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
    METHODS["denoising"].loss(prior, x).sum().backward()
    with torch.no_grad():
        value = EXACT.loss(prior, x)
    torch.testing.assert_close(value, loss_by_hessians(prior.potential, x).detach())


def test_flat_and_linear_energies():
    slope = torch.tensor([1.0, -2.0], requires_grad=True)
    x = torch.randn(5, 2)
    for objective in (EXACT, SLICED):
        assert (objective.loss(real(lambda x: x.new_zeros(len(x)), (2,)), x) == 0).all()
        constant = objective.loss(real(lambda x: x @ slope.detach(), (2,)), x)
        torch.testing.assert_close(constant, torch.full((5,), 2.5))
        loss = objective.loss(real(lambda x: x @ slope, (2,)), x)
        (gradient,) = torch.autograd.grad(loss.sum(), slope)
        torch.testing.assert_close(gradient, 5 * slope)


# --- supports, shapes, calls ---


def test_change_of_variables_on_a_constrained_support():
    rate = torch.tensor(2.0, requires_grad=True)
    prior = ebm.EnergyBased(lambda x: rate * x, event_shape=(), support=constraints.positive)
    x = dist.Gamma(2.0, 1.0).sample((6,))
    # U(u) = rate e^u - u in u = log x.
    expected = 0.5 * (rate * x - 1) ** 2 - rate * x
    loss = EXACT.loss(prior, x)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss.sum(), rate)
    torch.testing.assert_close(gradient, ((rate * x - 1) * x - x).sum().detach())


def test_a_support_of_fewer_dimensions_than_its_values():
    prior = ebm.EnergyBased(lambda x: x[:, 0] ** 2, dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0])))
    x = prior.base.sample((5,))
    bijection = torch.distributions.biject_to(prior.support)

    def potential(u):
        simplex = bijection(u)
        return prior.potential(simplex) - bijection.log_abs_det_jacobian(u, simplex)

    expected = loss_by_hessians(potential, bijection.inv(x))
    torch.testing.assert_close(EXACT.loss(prior, x), expected.detach())


def test_discrete_supports_are_refused():
    prior = ebm.EnergyBased(lambda x: x, dist.Poisson(3.0))
    with pytest.raises(ValueError, match="Expected a continuous support"):
        EXACT.loss(prior, torch.ones(2))


@pytest.mark.parametrize("method", METHODS)
def test_a_value_that_all_batch_elements_share(method):
    bases = dist.Normal(torch.zeros(3, 2), torch.tensor([[0.5], [1.0], [2.0]])).to_event(1)
    prior, x = ebm.EnergyBased(lambda x: x.pow(4).sum(-1), bases), torch.tensor([0.3, -0.7])
    pyro.set_rng_seed(0)
    shared = METHODS[method].loss(prior, x)
    pyro.set_rng_seed(0)
    assert shared.shape == (3,)
    torch.testing.assert_close(shared, METHODS[method].loss(prior, x.expand(3, 2)))


@pytest.mark.parametrize(
    ("objective", "num_copies"),
    [
        (EXACT, 6),
        (ebm.ScoreMatching("sliced", num_projections=3), 3),
        (METHODS["denoising"], 1),
    ],
)
def test_one_call_of_the_energy_and_no_gradient_to_the_value(objective, num_copies):
    calls = []

    def energy(x):
        calls.append(x.shape)
        return x.pow(4).sum((1, 2, 3))

    prior, value = real(energy, (1, 2, 3)), torch.randn(2, 4, 1, 2, 3, requires_grad=True)
    loss = objective.loss(prior, value)
    assert loss.shape == (2, 4)
    assert not loss.requires_grad
    assert calls == [(num_copies * 8, 1, 2, 3)]


@pytest.mark.parametrize("method", METHODS)
def test_values_can_be_read_without_gradients(method):
    prior, x = real(convolutional(), (1, 2, 3)), torch.randn(4, 1, 2, 3)
    pyro.set_rng_seed(0)
    with torch.no_grad():
        value = METHODS[method].loss(prior, x)
    pyro.set_rng_seed(0)
    loss = METHODS[method].loss(prior, x)
    assert loss.requires_grad
    assert not value.requires_grad
    torch.testing.assert_close(value, loss.detach())


def test_what_does_not_go_together():
    with pytest.raises(ValueError, match="`variance` to be a positive number, got None"):
        ebm.ScoreMatching("denoising")
    with pytest.raises(ValueError, match="`variance` with method='denoising' only, got 0.1"):
        ebm.ScoreMatching("sliced", variance=0.1)
    with pytest.raises(ValueError, match="`num_projections` with method='sliced' only, got 2"):
        ebm.ScoreMatching(num_projections=2)


def test_it_says_what_it_does():
    assert repr(ebm.ScoreMatching()) == "ScoreMatching('exact')"
    assert repr(SLICED) == "ScoreMatching('sliced', num_projections=1)"
    assert repr(METHODS["denoising"]) == "ScoreMatching('denoising', variance=0.1)"


# --- training ---


@pytest.mark.parametrize("method", METHODS)
def test_data_get_the_lower_energy(method):
    blobs = torch.tensor([[1.5, 0.0], [-1.5, 0.0]])
    x = blobs.repeat(128, 1) + 0.5 * torch.randn(256, 2)
    net = nn.Sequential(nn.Linear(2, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), *tail(32)[1:])
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        METHODS[method].loss(real(net, (2,)), x).mean().backward()
        optimizer.step()
    elsewhere = torch.tensor([[0.0, 0.0], [0.0, 1.5], [1.5, 1.5], [-1.5, -1.5], [3.0, 0.0]])
    assert net(blobs).max() < net(elsewhere).min() - 0.5


NUM_DATA, WRONG = 1024, 128


def svi_model(x, precision):
    """A prior N(0, 1 / precision) under a likelihood of variance 1; some values are wrong."""
    precision = pyro.param("precision", precision)
    prior = ebm.EnergyBased(lambda z: 0.5 * precision * z.square().sum(-1), event_shape=(2,))
    with pyro.plate("data", NUM_DATA, subsample_size=256) as index:
        with poutine.mask(mask=index >= WRONG):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x[index])


def svi_guide(x, precision):
    """The exact posterior under a prior of variance 4."""
    with pyro.plate("data", NUM_DATA, subsample_size=256) as index:
        with poutine.mask(mask=index >= WRONG):
            pyro.sample("z", dist.Normal(0.8 * x[index], math.sqrt(0.8)).to_event(1))


@pytest.mark.parametrize(
    ("objective", "elbo", "variance", "error"),
    [
        (
            EXACT,
            Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1),
            4.0,
            0.006,
        ),
        (SLICED, TraceGraph_ELBO(), 4.0, 0.006),
        (ebm.ScoreMatching("denoising", variance=2.0), Trace_ELBO(num_particles=2), 6.0, 0.01),
    ],
)
def test_svi_recovers_the_precision_of_a_latent_prior(objective, elbo, variance, error):
    x = math.sqrt(5.0) * torch.randn(NUM_DATA, 2)
    x[WRONG:] *= math.sqrt(5.0) / x[WRONG:].square().mean().sqrt()
    x[:WRONG] = 100.0
    loss = ebm.EnergyELBO(objective, elbo, num_normalizer_samples=0)
    svi = SVI(svi_model, svi_guide, Adam({"lr": 0.02}), loss)
    path = []
    for _ in range(120):
        svi.step(x, torch.tensor(0.3))
        path.append(pyro.param("precision").item())
    assert sum(path[-60:]) / 60 == pytest.approx(1 / variance, rel=4 * error)


@pytest.mark.parametrize("method", METHODS)
def test_svi_steps_all_of_a_module_but_what_no_slope_depends_on(method):
    first = nn.utils.parametrizations.spectral_norm(nn.Linear(2, 4))
    net = nn.Sequential(first, *tail(4))
    x = torch.randn(8, 2)

    def model():
        pyro.module("net", net)
        base = dist.Normal(torch.zeros(2), pyro.param("scale", torch.tensor(3.0))).to_event(1)
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(net, base), obs=x)

    before = {name: parameter.clone() for name, parameter in net.named_parameters()}
    loss = ebm.EnergyELBO(METHODS[method], num_normalizer_samples=0)
    SVI(model, lambda: None, Adam({"lr": 0.1}), loss).step()
    unchanged = [name for name, new in net.named_parameters() if torch.equal(new, before[name])]
    assert unchanged == ["2.bias"]
    assert pyro.param("scale").item() != 3.0
