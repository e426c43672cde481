import math

import arviz as az
import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from helpers.hosts.pyro import normal
from helpers.linear_generator import (
    LOG_NORMALIZER,
    NOISE_SCALE,
    NOISY_VARIANCE,
    A,
    W,
    assert_variance,
    latent_variance,
    square,
    stretch,
)
from pyro.contrib.zuko import ZukoToPyro
from pyro.infer import MCMC, NUTS, SVI
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.distributions.transforms import AffineTransform

import pyro_ebm.pyro as ebm
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.diagnostics import to_arviz
from pyro_ebm.pyro.samplers.run import move_values


def make_prior(inverse_temperature=1.0, *, step_size=0.5, noise_scale=0.0):
    return ebm.EnergyBased(
        square,
        ebm.Pushforward(normal((1,)), stretch, noise_scale=noise_scale),
        sampler=ebm.MALA(step_size),
        num_sampler_steps=60,
        inverse_temperature=inverse_temperature,
    )


# --- generator alone ---


@pytest.mark.parametrize(
    ("latent_shape", "event_shape"), [((), (2,)), ((3,), (2,)), ((2,), (4, 4))]
)
def test_shapes(latent_shape, event_shape):
    net = nn.Linear(math.prod(latent_shape), math.prod(event_shape))

    def generator(z):
        return net(z.reshape(len(z), -1)).reshape(len(z), *event_shape)

    pushforward = ebm.Pushforward(normal(latent_shape), generator)
    assert pushforward.event_shape == event_shape
    assert pushforward.sample((5, 3)).shape == (5, 3, *event_shape)
    assert pushforward.expand((7,)).sample((2,)).shape == (2, 7, *event_shape)
    assert pushforward.support.check(pushforward.sample((5,))).all()
    prior = ebm.EnergyBased(lambda x: x.reshape(len(x), -1).sum(-1), pushforward)
    with pyro.plate("data", 7):
        assert pyro.sample("x", prior).shape == (7, *event_shape)


def test_gradients_of_draws():
    scale = torch.tensor(2.0, requires_grad=True)
    loc = torch.tensor([1.0], requires_grad=True)
    latent = dist.Normal(loc, 1.0).to_event(1)
    mean = ebm.Pushforward(latent, lambda z: scale * z).rsample((1000,)).mean()
    gradients = torch.autograd.grad(mean, [scale, loc])
    assert gradients[0].item() == pytest.approx(mean.item() / 2, abs=1e-5)
    assert gradients[1].item() == pytest.approx(2.0)


def test_noise():
    assert_variance(
        ebm.Pushforward(normal((1,)), stretch, noise_scale=NOISE_SCALE).sample((20_000,)),
        NOISY_VARIANCE,
    )


def test_learned_noise():
    scale = torch.tensor(0.5, requires_grad=True)
    pushforward = ebm.Pushforward(normal((1,)), stretch, noise_scale=scale)
    assert pushforward.is_implicit
    for source in (pushforward, pushforward.expand((3,)), pushforward.noiseless):
        draws = source.rsample((20_000,))
        assert_variance(draws.detach(), NOISY_VARIANCE)
        (gradient,) = torch.autograd.grad(draws.square().mean(), scale)
        # The derivative of its square, with the error of a mean of 2 eps (x + eps / 2).
        assert gradient.item() == pytest.approx(1.0, abs=4 * (11 / 20_000) ** 0.5)


@pytest.mark.parametrize("noise_scale", [0.0, 0.5])
def test_no_density(noise_scale):
    pushforward = ebm.Pushforward(normal((1,)), stretch, noise_scale=noise_scale)
    assert pushforward.is_implicit
    with pytest.raises(NotImplementedError, match="Expected a Transform as the generator"):
        pushforward.log_prob(torch.zeros(1))


def test_density_of_a_transform():
    pushforward = ebm.Pushforward(normal((2,)), AffineTransform(1.0, 2.0))
    value = torch.randn(5, 2)
    expected = dist.Normal(torch.ones(2), 2.0).to_event(1).log_prob(value)
    torch.testing.assert_close(pushforward.log_prob(value), expected)
    assert not pushforward.is_implicit
    prior = ebm.EnergyBased(square, pushforward)
    torch.testing.assert_close(prior.log_prob(value), expected - square(value))


def test_bad_arguments():
    with pytest.raises(TypeError, match="`latent` to be a distribution, got str"):
        ebm.Pushforward("normal", stretch)
    with pytest.raises(TypeError, match="`generator` to be callable, got int"):
        ebm.Pushforward(normal((1,)), 3)
    with pytest.raises(ValueError, match=r"`noise_scale` to be one number, got .*\(1,\)"):
        ebm.Pushforward(normal((1,)), stretch, noise_scale=torch.ones(1))
    with pytest.raises(ValueError, match=r"the generator to map \(N, \*latent"):
        ebm.Pushforward(normal((2,)), lambda z: torch.cat([z, z]))
    positive = dist.Gamma(torch.ones(1), 1.0).to_event(1)
    with pytest.raises(ValueError, match="a latent over all real numbers"):
        _ = ebm.Pushforward(positive, stretch, noise_scale=NOISE_SCALE).noiseless


def test_generator_with_batch_norm():
    net = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))
    pushforward = ebm.Pushforward(normal((1,)), net, event_shape=(2,))
    assert pushforward.sample((8,)).shape == (8, 2)


# --- with an energy ---


def test_log_prob_is_relative_to_the_base():
    energy = nn.Sequential(nn.Linear(1, 1), nn.Flatten(0))
    prior = ebm.EnergyBased(energy, ebm.Pushforward(normal((1,)), stretch), inverse_temperature=3.0)
    x = torch.randn(4, 1, requires_grad=True)
    torch.testing.assert_close(prior.log_prob(x), -3 * energy(x))
    torch.testing.assert_close(scaled_energy(prior, x), 3 * energy(x))
    prior.log_prob(x).sum().backward()
    assert x.grad is not None
    assert all(parameter.grad is None for parameter in energy.parameters())


@pytest.mark.parametrize(("inverse_temperature", "step_size"), [(1.0, 0.5), (10.0, 0.06)])
def test_latent_sampling(inverse_temperature, step_size):
    prior = make_prior(inverse_temperature, step_size=step_size)
    expected = latent_variance(inverse_temperature)
    assert_variance(prior.latent.sample((20_000,)), expected)
    assert_variance(prior.sample((20_000,)), W**2 * expected)


def test_sampling_in_data_space():
    direct = ebm.EnergyBased(
        square,
        dist.Normal(torch.zeros(1), W).to_event(1),
        sampler=ebm.MALA(0.8),
        num_sampler_steps=60,
    )
    assert_variance(direct.sample((20_000,)), W**2 * latent_variance(1.0))


def test_noise_in_the_latent():
    prior = make_prior(noise_scale=NOISE_SCALE)
    assert prior.latent.event_shape == (2,)
    assert_variance(prior.sample((20_000,)), NOISY_VARIANCE / (1 + A * NOISY_VARIANCE))
    estimate = ebm.log_normalizer(prior, method="grid").estimate
    assert estimate.item() == pytest.approx(-0.5 * math.log(1 + A * NOISY_VARIANCE), abs=1e-3)


def test_log_normalizer():
    prior = make_prior()
    grid = ebm.log_normalizer(prior, method="grid")
    assert grid.estimate.item() == pytest.approx(LOG_NORMALIZER, abs=1e-3)
    for method in ("annealed", "importance"):
        found = ebm.log_normalizer(prior, method=method)
        assert abs(found.estimate.item() - LOG_NORMALIZER) < 4 * found.standard_error.item()


@pytest.mark.parametrize(
    "sampler",
    [ebm.Langevin(0.1), ebm.KineticLangevin(0.2), ebm.MALA(0.3), ebm.HMC(0.4, num_steps=3)],
    ids=lambda sampler: type(sampler).__name__,
)
def test_latent_chains(sampler):
    settings = {"num_chains": 50, "num_samples": 50, "num_warmup": 50, "progress_bar": False}
    chains = ebm.run_chains(sampler, make_prior().latent, thinning=2, **settings)
    data = chains.to_arviz()
    assert az.rhat(data)["x"].max() < 1.05
    effective = az.ess(data)["x"].min().item()
    assert effective > 300
    error = latent_variance(1.0) * math.sqrt(2 / effective)
    # Beside the unadjusted kernels' own bias of two to four parts in a hundred.
    assert abs(chains.samples.var().item() - latent_variance(1.0)) < 4 * error + 0.015


def test_nuts_on_the_latent():
    mcmc = MCMC(
        NUTS(lambda: pyro.sample("z", make_prior().latent)),
        num_samples=200,
        warmup_steps=50,
        disable_progbar=True,
    )
    mcmc.run()
    assert mcmc.get_samples()["z"].var().item() == pytest.approx(latent_variance(1.0), rel=0.5)
    assert "posterior" in to_arviz(mcmc).groups()


# --- refusals ---


def latent_model(x=None):
    with pyro.plate("data", 3):
        z = pyro.sample("z", make_prior())
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def test_latent_site_without_a_density():
    x = torch.zeros(3, 1)
    guide = AutoNormal(lambda x: pyro.sample("z", normal((1,)).expand([3]).to_event(1)))
    svi = SVI(
        latent_model,
        guide,
        pyro.optim.Adam({"lr": 0.01}),
        ebm.EnergyELBO(ebm.ContrastiveDivergence()),
    )
    with pytest.raises(ValueError, match="Expected a base with a density at the latent site 'z'"):
        svi.step(x)
    (issue,) = ebm.check_model(latent_model)(x)
    assert (issue.site, issue.kind) == ("z", "implicit")
    with pytest.raises(NotImplementedError, match="use the latent space"):
        MCMC(NUTS(latent_model), num_samples=2, warmup_steps=1, disable_progbar=True).run(x)


@pytest.mark.parametrize(
    "use",
    [
        lambda prior: ebm.run_chains(ebm.MALA(0.1), prior, progress_bar=False),
        lambda prior: move_values(ebm.MALA(0.1), prior, torch.zeros(3, 1), 1),
        lambda prior: ebm.EnergyDiscrepancy(variance=0.1).loss(prior, torch.zeros(3, 1)),
        lambda prior: ebm.ScoreMatching().loss(prior, torch.zeros(3, 1)),
    ],
)
def test_uses_that_need_a_density(use):
    with pytest.raises((ValueError, NotImplementedError), match="latent"):
        use(make_prior())


def test_base_without_a_latent_space():
    with pytest.raises(ValueError, match="Expected a base with a latent space"):
        _ = ebm.EnergyBased(square, normal((1,))).latent


def test_batch_of_transforms():
    base = dist.TransformedDistribution(
        normal((1,)).expand([3]), AffineTransform(torch.ones(3, 1), 1.0)
    )
    with pytest.raises(ValueError, match="Expected one transform for all batch elements"):
        _ = ebm.EnergyBased(square, base).latent


# --- flows ---


@pytest.fixture(scope="module")
def flow():
    torch.manual_seed(0)
    flow = zuko.flows.NSF(2, transforms=1, hidden_features=(8,))
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.5)
    return flow


@pytest.mark.parametrize("wrap", [lambda flow: flow, ZukoToPyro], ids=["zuko", "ZukoToPyro"])
def test_flow_as_a_base(flow, wrap):
    prior = ebm.EnergyBased(square, wrap(flow()), sampler=ebm.MALA(0.3), num_sampler_steps=100)
    value = torch.randn(5, 2)
    expected = flow().log_prob(value) - square(value)
    torch.testing.assert_close(prior.log_prob(value), expected)
    # Its latent has the same normalizer, and draws that the flow takes to the same moments.
    draws = flow().sample((20_000,))
    weights = torch.softmax(-square(draws), 0)
    grid = ebm.log_normalizer(prior.latent, method="grid").estimate.item()
    importance = torch.logsumexp(-square(draws), 0).item() - math.log(len(draws))
    assert grid == pytest.approx(importance, abs=0.04)
    moved = flow().transform.inv(prior.latent.sample((4000,)))
    expected = (weights[:, None] * draws.square()).sum(0)
    torch.testing.assert_close(moved.square().mean(0), expected, rtol=0.15, atol=0.0)


def test_parameters_of_a_flow(flow):
    for prior in (ebm.EnergyBased(square, flow()), ebm.EnergyBased(square, flow()).latent):
        value = torch.randn(3, 2, requires_grad=True)
        prior.log_prob(value).sum().backward()
        assert value.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in flow.parameters())
