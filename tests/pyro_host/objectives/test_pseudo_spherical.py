import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.oracles import PSEUDO_SPHERICAL_VALUES, pseudo_spherical_gradient
from pyro import poutine
from pyro.infer import SVI
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm.core.infer.metrics import recorded_figures

pytestmark = pytest.mark.usefixtures("float64")

# From -1/2 down the weights have no variance.
GAMMAS = [-0.2, 0.5, 1.0]


class Gaussian(nn.Module):
    """E(x) = (x - mu)^2 / (2 s^2) + constant."""

    def __init__(self, mu=0.4, scale=1.2):
        super().__init__()
        self.mu = nn.Parameter(torch.tensor(mu))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.constant = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        return 0.5 * ((x - self.mu) / self.log_scale.exp()) ** 2 + self.constant


def flat(energy):
    return ebm.EnergyBased(energy, event_shape=())


def loss_and_gradients(objective, distribution, parameters, x, draws, weights=1.0):
    """Of the mean loss; of ``weights`` times the losses."""
    loss = objective.loss(distribution, x, chains=draws)
    gradients = torch.autograd.grad((weights * loss).mean(), parameters, allow_unused=True)
    return loss.detach(), torch.stack([torch.zeros(()) if g is None else g for g in gradients])


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradient_is_the_closed_form(gamma):
    energy, blocks = Gaussian(), []
    for _ in range(40):
        x, draws = torch.randn(1000) - 0.3, 0.4 + 1.2 * torch.randn(1000)
        objective, parameters = ebm.PseudoSpherical(gamma), list(energy.parameters())
        loss, gradients = loss_and_gradients(objective, flat(energy), parameters, x, draws)
        assert loss.shape == (1000,)
        assert gradients[2].abs() < 1e-12  # A constant of the energy is no matter.
        blocks.append(gradients[:2])
    blocks = torch.stack(blocks)
    error = blocks.std(0) / math.sqrt(len(blocks))
    expected = torch.tensor(pseudo_spherical_gradient(gamma, 0.4, math.log(1.2)))
    assert (error < 0.02).all()
    assert ((blocks.mean(0) - expected).abs() < 4 * error).all()
    if gamma in PSEUDO_SPHERICAL_VALUES:
        assert expected[0].item() == pytest.approx(PSEUDO_SPHERICAL_VALUES[gamma], abs=1e-6)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_value(gamma):
    x, draws = torch.randn(6), torch.randn(5)
    loss = ebm.PseudoSpherical(gamma).loss(flat(Gaussian(0.0, 1.0)), x, chains=draws)
    means = [torch.exp(-gamma * y**2 / 2).mean() for y in (draws, x)]
    torch.testing.assert_close(loss, (means[0] / means[1]).log().div(gamma).expand(6))


def test_a_constant_of_the_energy_changes_nothing():
    energy, x, draws = Gaussian(), torch.randn(6), torch.randn(5)
    arguments = (ebm.PseudoSpherical(0.7), flat(energy), list(energy.parameters()), x, draws)
    before = loss_and_gradients(*arguments)
    energy.constant.data += 1e3
    for found, expected in zip(loss_and_gradients(*arguments), before, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("scale", [1.2, 1e6])
def test_it_is_contrastive_divergence_if_all_weights_are_equal(scale):
    # Gamma near zero, or an energy that is as good as constant: value by value.
    gamma = 1e-8 if scale == 1.2 else 0.5
    energy, x, draws = Gaussian(scale=scale), torch.randn(6), torch.randn(5)
    weights, parameters = torch.randn(6), [energy.mu, energy.log_scale]
    arguments = (flat(energy), parameters, x, draws, weights)
    loss, found = loss_and_gradients(ebm.PseudoSpherical(gamma), *arguments)
    expected_loss, expected = loss_and_gradients(ebm.ContrastiveDivergence(), *arguments)
    torch.testing.assert_close(loss.mean(), expected_loss.mean(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found, expected, atol=1e-7 * expected.abs().max(), rtol=0)


def test_the_base_is_a_part_of_the_energy():
    energy, loc, x, draws = Gaussian(), nn.Parameter(torch.tensor(0.3)), *torch.randn(2, 6)
    parameters = [energy.mu, energy.log_scale, loc]
    base = dist.Normal(loc, 2.0)
    objective = ebm.PseudoSpherical(0.5)
    loss, gradients = loss_and_gradients(
        objective, ebm.EnergyBased(energy, base), parameters, x, draws
    )
    absorbed = flat(lambda x: energy(x) - base.log_prob(x))
    expected_loss, expected = loss_and_gradients(objective, absorbed, parameters, x, draws)
    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(gradients, expected)


def test_energy_penalty():
    energy, x, draws = Gaussian(0.0, 1.0), torch.randn(6), torch.randn(5)
    losses = [
        ebm.PseudoSpherical(0.5, energy_penalty=penalty).loss(flat(energy), x, chains=draws)
        for penalty in (0.0, 0.2)
    ]
    expected = 0.2 * (energy(x) ** 2 + (energy(draws) ** 2).mean())
    torch.testing.assert_close(losses[1] - losses[0], expected)


def observed_model(energy, mask=True):
    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)), poutine.mask(mask=torch.as_tensor(mask)):
            pyro.sample("x", ebm.EnergyBased(energy, dist.Normal(0.0, 2.0)), obs=x)

    return model


def test_a_gaussian_is_recovered():
    energy, sampler = Gaussian(0.5, 2.0), ebm.MALA(0.4, num_steps=3)
    chains = ebm.PersistentChains(512, (), sampler=sampler)
    loss = ebm.EnergyELBO(ebm.PseudoSpherical(0.5), num_normalizer_samples=0)
    svi = SVI(
        observed_model(energy),
        lambda x: ebm.auxiliary("x", chains=chains),
        Adam({"lr": 0.05}),
        loss,
    )
    x, path = -0.3 + 0.8 * torch.randn(1024), []
    for _ in range(200):
        svi.step(x)
        precision = torch.exp(-2 * energy.log_scale.detach())
        mean = precision * energy.mu.detach() / (precision + 0.25)
        path.append((mean.item(), (precision + 0.25).item()))
    mean, precision = (sum(column[-100:]) / 100 for column in zip(*path, strict=True))
    # Over seeds they have deviations of 0.008 and 2 %.
    assert mean == pytest.approx(x.mean().item(), abs=0.032)
    assert precision == pytest.approx(1 / x.var().item(), rel=0.08)


def test_figures_of_health():
    # Energies 3, 3 and 3 + log 4 have weights 1, 1 and 1/2; draws have one more of energy 3.
    x = torch.tensor([0.0, 0.0, math.sqrt(2 * math.log(4.0))])
    with recorded_figures() as figures:
        draws = torch.cat([x, torch.zeros(1)])
        ebm.PseudoSpherical(0.5).loss(flat(Gaussian(0.0, 1.0)), x, chains=draws)
    assert figures["effective_values"]().item() == pytest.approx(2.5**2 / 2.25)
    assert figures["effective_negatives"]().item() == pytest.approx(3.5**2 / 3.25)
    assert figures["energy_gap"]().item() == pytest.approx(math.log(4.0) * (1 / 4 - 1 / 3))


def test_masked_values_have_no_gradient_but_count_in_the_weights():
    x, mask = torch.randn(6), torch.arange(6) < 4
    energy, objective = Gaussian(), ebm.PseudoSpherical(0.5, sampler=ebm.MALA(0.1, num_steps=1))
    pyro.set_rng_seed(1)
    loss = objective.loss(ebm.EnergyBased(energy, dist.Normal(0.0, 2.0)), x)
    (expected,) = torch.autograd.grad(loss[mask].sum(), energy.mu)
    pyro.set_rng_seed(1)
    ebm.EnergyELBO(objective).loss_and_grads(observed_model(energy, mask), lambda x: None, x)
    torch.testing.assert_close(energy.mu.grad, expected)


@pytest.mark.parametrize("gamma", [-1, -2.0, 0, 0.0])
def test_gamma_out_of_range(gamma):
    with pytest.raises(ValueError, match=f"`gamma` to be above -1 and not 0, got {gamma:g}"):
        ebm.PseudoSpherical(gamma)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"gamma": math.nan}, ValueError, "`gamma` to be a finite number, got nan"),
        ({"sampler": 0.1}, TypeError, "`sampler` to have init and step, got float"),
        ({"num_steps": 0}, ValueError, "`num_steps` to be an integer of at least 1, got 0"),
        ({"energy_penalty": -1}, ValueError, "`energy_penalty` to be a number of at least 0"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ebm.PseudoSpherical(**({"gamma": 0.5} | arguments))


def test_one_base_for_all_values():
    distribution = ebm.EnergyBased(Gaussian(), dist.Normal(torch.zeros(3), 1.0))
    with pytest.raises(ValueError, match=r"one base for all .* of batch shape \(3,\)"):
        ebm.PseudoSpherical(0.5).loss(distribution, torch.randn(3))
