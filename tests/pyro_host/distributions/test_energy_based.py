import copy
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.oracles import LOG_NORMALIZER_QUARTIC
from torch import nn
from torch.distributions import constraints

import pyro_ebm.pyro as ebm


class Bowl(nn.Module):
    """Energy weight * |x|^2 / 2 of values with any event shape."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return 0.5 * self.weight * x.flatten(1).square().sum(-1)


def normal(*shape):
    return dist.Normal(torch.zeros(shape), 1.0).to_event(len(shape))


DISTRIBUTIONS = {
    "scalar": lambda: ebm.EnergyBased(lambda x: x.pow(4) / 4, dist.Normal(0.0, 1.0)),
    "vector": lambda: ebm.EnergyBased(Bowl(), normal(3)),
    "image": lambda: ebm.EnergyBased(Bowl(), normal(1, 4, 4)),
    "no base": lambda: ebm.EnergyBased(Bowl(), event_shape=(3,)),
    "batched base": lambda: ebm.EnergyBased(
        Bowl(), dist.Normal(torch.zeros(5, 3), 2.0).to_event(1)
    ),
    "positive": lambda: ebm.EnergyBased(lambda x: x, dist.Gamma(2.0, 1.0)),
    "simplex": lambda: ebm.EnergyBased(lambda x: x[:, 0], dist.Dirichlet(torch.ones(3))),
    "expanded": lambda: ebm.EnergyBased(Bowl(), normal(3)).expand([4]),
}


@pytest.fixture(params=DISTRIBUTIONS)
def distribution(request):
    return DISTRIBUTIONS[request.param]()


def test_shapes(distribution):
    shape = distribution.batch_shape + distribution.event_shape
    value = distribution.sample((6,))
    assert value.shape == (6, *shape)
    assert not value.requires_grad
    assert distribution.support.check(value).all()
    assert distribution.log_prob(value).shape == (6, *distribution.batch_shape)
    assert distribution.potential(value).shape == (6, *distribution.batch_shape)
    torch.testing.assert_close(distribution.log_prob(value), -distribution.potential(value))


def test_expand_mask_to_event(distribution):
    expanded = distribution.expand((7, *distribution.batch_shape))
    value = expanded.sample()
    assert value.shape == expanded.batch_shape + expanded.event_shape
    torch.testing.assert_close(expanded.log_prob(value), distribution.log_prob(value))
    masked = expanded.mask(torch.arange(7).reshape(7, *(1,) * len(distribution.batch_shape)) < 3)
    assert (masked.log_prob(value)[3:] == 0).all()
    event = expanded.to_event(1)
    torch.testing.assert_close(event.log_prob(value), expanded.log_prob(value).sum(-1))
    one_value = distribution.sample()
    assert expanded.log_prob(one_value).shape == expanded.batch_shape


def test_copies_and_repr(distribution):
    value = distribution.sample()
    assert repr(distribution).startswith("EnergyBased(")
    twin = copy.deepcopy(distribution)
    torch.testing.assert_close(twin.log_prob(value), distribution.log_prob(value))


def test_pickles_where_the_energy_does():
    distribution = DISTRIBUTIONS["vector"]()
    twin = pickle.loads(pickle.dumps(distribution))
    value = distribution.sample()
    torch.testing.assert_close(twin.log_prob(value), distribution.log_prob(value))


def test_log_prob_is_a_score_and_potential_trains():
    energy, scale = Bowl(), nn.Parameter(torch.tensor(2.0))
    distribution = ebm.EnergyBased(energy, dist.Normal(torch.zeros(3), scale).to_event(1))
    value = torch.randn(5, 3, requires_grad=True)
    distribution.log_prob(value).sum().backward()
    assert energy.weight.grad is None
    assert scale.grad is None
    torch.testing.assert_close(value.grad, -1.25 * value.detach())
    distribution.potential(value).sum().backward()
    assert energy.weight.grad is not None
    assert scale.grad is not None


def test_known_log_normalizer_gives_the_exact_density_with_full_gradients():
    energy = Bowl(3.0)
    base = dist.Normal(0.0, 1.0)
    distribution = ebm.EnergyBased(
        lambda x: energy(x[:, None]), base, log_normalizer=lambda: -0.5 * torch.log1p(energy.weight)
    )
    value = torch.randn(5)
    exact = dist.Normal(0.0, 0.5)
    torch.testing.assert_close(distribution.log_prob(value), exact.log_prob(value))
    (gradient,) = torch.autograd.grad(distribution.log_prob(value).sum(), energy.weight)
    torch.testing.assert_close(gradient, (0.125 - value.square() / 2).sum())


def test_dtype_is_kept():
    distribution = ebm.EnergyBased(Bowl().double(), normal(3).base_dist.expand([3]).to_event(1))
    distribution = ebm.EnergyBased(Bowl().double(), event_shape=(3,))
    value = distribution.sample((2,))
    assert value.dtype == torch.float64
    assert distribution.log_prob(value).dtype == torch.float64


def test_default_sampler_is_close_to_the_target():
    # Precision 1 + 3 of a Gaussian; Langevin's bias at step 0.05 makes its variance 1/(4 - 0.4).
    distribution = ebm.EnergyBased(Bowl(3.0), normal(2))
    draws = distribution.sample((20000,))
    assert draws.var().item() == pytest.approx(1 / 3.6, rel=0.03)


def test_exact_sampler_is_exact():
    distribution = ebm.EnergyBased(
        lambda x: x.pow(4) / 4, dist.Normal(0.0, 1.0), sampler=ebm.MALA(0.1, num_steps=100)
    )
    x = torch.linspace(-8, 8, 4001)
    density = distribution.log_prob(x).exp()
    variance = (x.square() * density).sum() / density.sum()
    draws = distribution.sample((20000,))
    assert draws.var().item() == pytest.approx(variance.item(), rel=0.04)


def test_samples_under_no_grad_and_keeps_modules_clean():
    energy = Bowl()
    with torch.no_grad():
        ebm.EnergyBased(energy, normal(3)).sample((2,))
    assert energy.weight.grad is None


def test_constrained_draws_follow_the_density():
    # exp(-x) * Gamma(2, 1) is Gamma(2, 2) up to its normalizer.
    distribution = ebm.EnergyBased(
        lambda x: x, dist.Gamma(2.0, 1.0), sampler=ebm.MALA(0.3, num_steps=200)
    )
    draws = distribution.sample((20000,))
    assert draws.mean().item() == pytest.approx(1.0, rel=0.03)
    assert draws.var().item() == pytest.approx(0.5, rel=0.06)


def test_quartic_normalizer_oracle():
    x = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    base = dist.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    log_prob = ebm.EnergyBased(lambda x: x.pow(4) / 4, base).log_prob(x)
    log_z = torch.logsumexp(log_prob, 0) + torch.log(x[1] - x[0])
    assert log_z.item() == pytest.approx(LOG_NORMALIZER_QUARTIC, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"energy": 3.0, "base": dist.Normal(0.0, 1.0)},
            TypeError,
            "`energy` to be callable, got float",
        ),
        ({"energy": Bowl(), "base": 3.0}, TypeError, "`base` to be a distribution, got float"),
        ({"energy": Bowl()}, ValueError, "a `base` or an `event_shape`, got neither"),
        (
            {"energy": Bowl(), "base": normal(3), "event_shape": (2,)},
            ValueError,
            r"that of the base, \(3,\), got \(2,\)",
        ),
        (
            {"energy": Bowl(), "event_shape": (2,), "sampler": 0.1},
            TypeError,
            "init and step, got float",
        ),
        (
            {"energy": Bowl(), "event_shape": (2,), "log_normalizer": 0.1},
            TypeError,
            "`log_normalizer` to be callable, got float",
        ),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ebm.EnergyBased(**arguments)


def test_nan_is_named_where_arguments_are_validated():
    energy = lambda x: x.sum(-1) * float("nan")  # noqa: E731
    with pytest.raises(ValueError, match="give numbers, got NaN"):
        ebm.EnergyBased(energy, normal(3)).log_prob(torch.zeros(3))
    quiet = ebm.EnergyBased(energy, normal(3), validate_args=False)
    assert torch.isnan(quiet.log_prob(torch.zeros(3)))
    with pytest.raises(ValueError, match="support"):
        ebm.EnergyBased(Bowl(), normal(3)).log_prob(torch.full((3,), float("nan")))


def test_diverged_draws_are_an_error():
    steep = ebm.EnergyBased(lambda x: 1e3 * x.pow(4), dist.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="finite draws, got NaN or infinity"):
        steep.sample((10,))


def test_site_is_named_in_a_model():
    def model():
        pyro.sample("z", ebm.EnergyBased(lambda x: x.sum(-1) * float("nan"), normal(3)))

    with pytest.raises(ValueError, match="z"):
        pyro.poutine.trace(model).get_trace().compute_log_prob()


def test_support_of_the_base_is_kept():
    assert DISTRIBUTIONS["positive"]().support is constraints.positive or str(
        DISTRIBUTIONS["positive"]().support
    ).startswith("Greater")
