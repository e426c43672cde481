import copy
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.hosts.pyro import Bowl, normal
from helpers.oracles import LOG_NORMALIZER_QUARTIC
from torch import nn
from torch.distributions import constraints

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.distributions.energy_based import importance_log_weights, without_plates

DISTRIBUTIONS = {
    "scalar": lambda: ebm.EnergyBased(lambda x: x.pow(4) / 4, dist.Normal(0.0, 1.0)),
    "vector": lambda: ebm.EnergyBased(Bowl(), normal((3,))),
    "image": lambda: ebm.EnergyBased(Bowl(), normal((1, 4, 4))),
    "no base": lambda: ebm.EnergyBased(Bowl(), event_shape=(3,)),
    "batched base": lambda: ebm.EnergyBased(
        Bowl(), dist.Normal(torch.zeros(5, 3), 2.0).to_event(1)
    ),
    "positive": lambda: ebm.EnergyBased(lambda x: x, dist.Gamma(2.0, 1.0)),
    "simplex": lambda: ebm.EnergyBased(lambda x: x[:, 0], dist.Dirichlet(torch.ones(3))),
    "expanded": lambda: ebm.EnergyBased(Bowl(), normal((3,))).expand([4]),
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


def test_pickle():
    distribution = DISTRIBUTIONS["vector"]()
    twin = pickle.loads(pickle.dumps(distribution))
    value = distribution.sample()
    torch.testing.assert_close(twin.log_prob(value), distribution.log_prob(value))


def test_settings_of_derived_distributions():
    base = ebm.Pushforward(normal((1,)), torch.sin)
    options = {"sampler": ebm.MALA(0.1), "num_sampler_steps": 7, "inverse_temperature": 2.0}
    distribution = ebm.EnergyBased(Bowl(), base, **options).expand([4])
    for derived in (distribution, distribution.latent, without_plates(distribution)):
        assert {name: getattr(derived, name) for name in options} == options
    assert distribution.latent.batch_shape == (4,)
    assert without_plates(distribution).batch_shape == ()


def test_gradients_of_log_prob_and_potential():
    energy, scale = Bowl(), nn.Parameter(torch.tensor(2.0))
    distribution = ebm.EnergyBased(energy, dist.Normal(torch.zeros(3), scale).to_event(1))
    value = torch.randn(5, 3, requires_grad=True)
    distribution.log_prob(value).sum().backward()
    assert energy.weight.grad is None
    assert scale.grad is None
    torch.testing.assert_close(value.grad, -1.25 * value.detach())
    distribution.potential(value).sum().backward()
    torch.testing.assert_close(energy.weight.grad, value.square().sum().detach())
    expected = 15 / 2.0 - value.square().sum().detach() / 2.0**3
    torch.testing.assert_close(scale.grad, expected)


def test_known_log_normalizer():
    energy = Bowl(1.5)
    distribution = ebm.EnergyBased(
        lambda x: energy(x[:, None]),
        dist.Normal(0.0, 1.0),
        log_normalizer=lambda: -0.5 * torch.log1p(2 * energy.weight),
    )
    value = torch.randn(5)
    exact = dist.Normal(0.0, 0.5)
    torch.testing.assert_close(distribution.log_prob(value), exact.log_prob(value))
    (gradient,) = torch.autograd.grad(distribution.log_prob(value).sum(), energy.weight)
    torch.testing.assert_close(gradient, (0.25 - value.square()).sum())


def test_dtype():
    distribution = ebm.EnergyBased(Bowl().double(), event_shape=(3,))
    value = distribution.sample((2,))
    assert value.dtype == torch.float64
    assert distribution.log_prob(value).dtype == torch.float64


def test_quartic_log_normalizer():
    x = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    base = dist.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    prior = ebm.EnergyBased(lambda x: x.pow(4) / 4, base)
    log_z = torch.logsumexp(prior.log_prob(x), 0) + torch.log(x[1] - x[0])
    assert log_z.item() == pytest.approx(LOG_NORMALIZER_QUARTIC, abs=1e-6)
    weights = importance_log_weights(prior, 20_000).exp()
    error = 4 * weights.std().item() / math.sqrt(20_000)
    assert weights.mean().item() == pytest.approx(math.exp(LOG_NORMALIZER_QUARTIC), abs=error)


# --- draws ---


def test_default_sampler():
    # Precision 1 + 3 of a Gaussian; Langevin's bias at step 0.05 makes its variance 1/(4 - 0.4).
    draws = ebm.EnergyBased(Bowl(1.5), normal()).sample((20000,))
    assert draws.var().item() == pytest.approx(1 / 3.6, rel=0.03)


def test_exact_sampler():
    prior = ebm.EnergyBased(lambda x: x.pow(4) / 4, dist.Normal(0.0, 1.0), sampler=ebm.MALA(0.1))
    x = torch.linspace(-8, 8, 4001)
    density = prior.log_prob(x).exp()
    variance = (x.square() * density).sum() / density.sum()
    draws = prior.sample((20000,))
    assert draws.var().item() == pytest.approx(variance.item(), rel=0.04)


def test_number_of_steps():
    target = dist.Normal(100.0, 0.1)
    prior = ebm.EnergyBased(Bowl(), target, sampler=ebm.Langevin(1e-6), num_sampler_steps=1)
    assert prior.sample().item() == pytest.approx(100.0, abs=1.0)


def test_constrained_draws():
    # exp(-x) * Gamma(2, 1) is Gamma(2, 2) up to its normalizer.
    draws = ebm.EnergyBased(
        lambda x: x, dist.Gamma(2.0, 1.0), sampler=ebm.MALA(0.3), num_sampler_steps=200
    ).sample((20000,))
    assert draws.mean().item() == pytest.approx(1.0, rel=0.03)
    assert draws.var().item() == pytest.approx(0.5, rel=0.06)


def test_draws_under_no_grad():
    energy = Bowl()
    with torch.no_grad():
        ebm.EnergyBased(energy, normal((3,))).sample((2,))
    assert energy.weight.grad is None


def test_diverged_draws():
    steep = ebm.EnergyBased(lambda x: 1e3 * x.pow(4), dist.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="finite draws, got NaN or infinity"):
        steep.sample((10,))


# --- errors ---


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"energy": 3.0, "event_shape": (2,)}, TypeError, "`energy` to be callable, got float"),
        ({"base": 3.0}, TypeError, "`base` to be a distribution, got float"),
        ({"event_shape": (2,), "sampler": ebm.MALA}, TypeError, "got the class MALA"),
        ({"event_shape": (2,), "num_sampler_steps": 0}, ValueError, "`num_sampler_steps` to be"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ebm.EnergyBased(**{"energy": Bowl()} | arguments)


def test_nan():
    def energy(x):
        return x.sum(-1) * float("nan")

    with pytest.raises(ValueError, match="give numbers, got NaN"):
        ebm.EnergyBased(energy, normal((3,))).log_prob(torch.zeros(3))
    quiet = ebm.EnergyBased(energy, normal((3,)), validate_args=False)
    assert torch.isnan(quiet.log_prob(torch.zeros(3)))
    with pytest.raises(ValueError, match="support"):
        ebm.EnergyBased(Bowl(), normal((3,))).log_prob(torch.full((3,), float("nan")))
    model = pyro.poutine.trace(lambda: pyro.sample("z", ebm.EnergyBased(energy, normal((3,)))))
    with pytest.raises(ValueError, match="z"):
        model.get_trace().compute_log_prob()


def test_support():
    assert str(DISTRIBUTIONS["positive"]().support).startswith("Greater")
    assert ebm.EnergyBased(Bowl(), event_shape=()).support is constraints.real
    own = ebm.EnergyBased(Bowl(), normal((3,)), support=constraints.simplex)
    assert own.expand([4]).support is constraints.simplex
