import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import f_divergence_steps as steps
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm


class Linear(nn.Module):
    """Weights times features of a number."""

    def __init__(self, weights, *functions):
        super().__init__()
        self.weights = nn.Parameter(torch.as_tensor(weights))
        self.functions = functions

    def forward(self, x):
        return torch.stack([function(x) for function in self.functions], -1) @ self.weights


POWERS = (torch.ones_like, lambda x: x, torch.square)


def quadratic(weights):
    return Linear(weights, *POWERS)


def critic():
    return Linear(steps.OMEGA, *POWERS, torch.sin)


# --- value and gradient ---


def step_gradients(objective, energy, critic, base, leaves):
    loss = objective.loss(
        ebm.EnergyBased(energy, base, event_shape=()),
        torch.as_tensor(steps.X),
        critic=critic,
        chains=torch.as_tensor(steps.DRAWS),
    )
    return loss.detach(), torch.autograd.grad(loss.mean(), leaves)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("divergence", steps.TABLE)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"gradient": "covariance"}, {"covariance_only": True}),
        ({"log_ratio_bound": 0.3}, {"bound": 0.3}),
        (
            {"energy_penalty": steps.ENERGY_PENALTY, "critic_penalty": steps.CRITIC_PENALTY},
            {"penalties": True},
        ),
    ],
)
def test_gradients_of_all_players_are_those_of_the_formula(divergence, options, expected):
    energy, judge = quadratic(steps.THETA), critic()
    base_leaves = [torch.tensor(x, requires_grad=True) for x in (steps.BASE_LOC, steps.BASE_SCALE)]
    _, found = step_gradients(
        ebm.FDivergence(divergence, **options),
        energy,
        judge,
        dist.Normal(*base_leaves),
        [energy.weights, judge.weights, *base_leaves],
    )
    of_energy, of_critic, of_base = steps.gradients(divergence, **expected)
    np.testing.assert_allclose(found[0], of_energy, atol=1e-12)
    np.testing.assert_allclose(found[1], of_critic, atol=1e-12)
    np.testing.assert_allclose(torch.stack(found[2:]), of_base, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_a_constant_moves_between_energy_and_critic_for_free():
    objective, found = ebm.FDivergence("jensen_shannon"), []
    for shift in (0.0, 2.5):
        energy, judge = quadratic(steps.THETA), critic()
        energy.weights.data[0] += shift
        judge.weights.data[0] -= shift
        loss, gradients = step_gradients(objective, energy, judge, None, [energy.weights])
        found.append((loss, *gradients))
    for with_shift, without in zip(*found, strict=True):
        torch.testing.assert_close(with_shift, without, rtol=0, atol=1e-13)


@pytest.mark.usefixtures("float64")
def test_value_is_the_lower_bound_and_health_says_how_good_the_critic_is():
    """At the best critic, between N(0, 1) and N(1, 1), V is the divergence and the ratio is 1."""
    torch.manual_seed(0)
    x, draws = torch.randn(2, 40_000)
    energy = Linear([-0.5, 0.5], lambda x: x, lambda x: x.square() / 2)
    model = ebm.EnergyBased(energy, event_shape=())  # A scale of sqrt 2 about 1/2, by its energy.
    log_ratio = dist.Normal(0.0, 1.0).log_prob(x) - dist.Normal(0.5, 2**0.5).log_prob(x)
    draws = 0.5 + 2**0.5 * draws
    at_draws = dist.Normal(0.0, 1.0).log_prob(draws) - dist.Normal(0.5, 2**0.5).log_prob(draws)

    def best(x):
        normalized = dist.Normal(0.0, 1.0).log_prob(x) - dist.Normal(0.5, 2**0.5).log_prob(x)
        return normalized - energy(x).detach()

    objective = ebm.FDivergence("kl")
    value = objective.loss(model, x, critic=best, chains=draws).detach()
    # b = u and E_q[u] = 1: what is left of V is the mean of 1 + log u, less 1.
    assert value.mean().item() == pytest.approx(
        (1 + log_ratio).mean().item() - at_draws.exp().mean().item(), abs=1e-12
    )
    # KL(N(0, 1) || N(1/2, 2)) = (log 2 + 1/2 + 1/8 - 1) / 2.
    exact = 0.5 * (np.log(2) + 0.5 + 0.125 - 1)
    assert value.mean().item() == pytest.approx(exact, abs=4 * value.std().item() / 200)
    torch.testing.assert_close(objective.log_ratio(model, x, critic=best), log_ratio)
    judge, energy = critic(), quadratic(steps.THETA)
    loss = ebm.EnergyELBO(ebm.FDivergence("kl", log_ratio_bound=0.5))

    def guide(x):
        ebm.auxiliary("x", critic=judge, chains=torch.as_tensor(steps.DRAWS))

    (figures,) = loss.health(observed(energy), guide, torch.as_tensor(steps.X)).values()
    ratio = judge(torch.as_tensor(steps.DRAWS)) + energy(torch.as_tensor(steps.DRAWS))
    assert figures["log_ratio_of_negatives"].item() == pytest.approx(ratio.mean().item())
    assert figures["mean_ratio"].item() == pytest.approx(ratio.exp().mean().item())
    assert set(figures) == {
        "objective",
        "energy_gap",
        "energy_scale",
        "log_ratio_of_data",
        "log_ratio_of_negatives",
        "mean_ratio",
        "clipped",
    }
    assert 0 < figures["clipped"] < 1


# --- training ---


def observed(energy, base=None):
    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", ebm.EnergyBased(energy, base, event_shape=()), obs=x)

    return model


class Bowl(nn.Module):
    """Energy (x - loc)^2 / (2 scale^2)."""

    def __init__(self, loc=0.0, log_scale=0.0):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(loc))
        self.log_scale = nn.Parameter(torch.tensor(log_scale))

    def forward(self, x):
        return 0.5 * ((x - self.loc) * (-self.log_scale).exp()).square()


@pytest.mark.parametrize(
    ("divergence", "gradient"),
    [("kl", "full"), ("jensen_shannon", "covariance"), (ebm.alpha_divergence(-0.5), "full")],
)
def test_a_gaussian_is_recovered(divergence, gradient):
    energy, judge = Bowl(), quadratic(torch.zeros(3))
    data = 1.0 + 1.5 * torch.randn(400, 500)

    def guide(x):
        draws = energy.loc + energy.log_scale.exp() * torch.randn(len(x))
        ebm.auxiliary("x", critic=judge, chains=draws)

    loss = ebm.EnergyELBO(ebm.FDivergence(divergence, gradient=gradient), num_normalizer_samples=0)
    svi = SVI(observed(energy), guide, Adam({"lr": 0.02, "betas": (0.5, 0.999)}), loss)
    path = []
    for batch in data:
        svi.step(batch)
        path.append([energy.loc.item(), energy.log_scale.exp().item()])
    loc, scale = np.mean(path[-100:], axis=0)
    assert (loc, scale) == pytest.approx((1.0, 1.5), abs=0.05)


def test_players_have_learning_rates_of_their_own():
    energy, judge = Bowl(), quadratic(torch.zeros(3))
    before = judge.weights.detach().clone()

    def guide(x):
        ebm.auxiliary("x", critic=judge)

    def rates(name):
        return {"lr": 0.0 if name.startswith("x$critic") else 0.1}

    objective = ebm.FDivergence("kl", sampler=ebm.MALA(0.5), num_steps=5)
    svi = SVI(
        observed(energy, dist.Normal(0.0, 2.0)), guide, Adam(rates), ebm.EnergyELBO(objective)
    )
    svi.step(torch.randn(20))
    torch.testing.assert_close(judge.weights.detach(), before, rtol=0, atol=0)
    assert energy.loc.item() != 0.0


# Linear-Gaussian: x | z ~ N(z, 1), data N(0, 5): the best prior is N(0, 4), precision 1/4.
def test_a_prior_meets_the_aggregated_posterior():
    class Quadratic(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.0))

        def forward(self, z):
            return 0.5 * self.weight.exp() * z.square()

    energy, judge = Quadratic(), quadratic(torch.zeros(3))
    x = 5**0.5 * torch.randn(256)
    x = (x - x.mean()) * (5**0.5 / x.std(correction=0))

    def model():
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", ebm.EnergyBased(energy, dist.Normal(0.0, 4.0)))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide():
        slope = pyro.param("slope", torch.tensor(0.5))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        precision = 1 / 16 + energy.weight.exp().detach()
        draws = torch.randn(512) / precision.sqrt()
        ebm.auxiliary("z", critic=judge, chains=draws)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x, scale))

    elbo = Trace_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1)
    loss = ebm.EnergyELBO(ebm.FDivergence("jensen_shannon"), elbo, num_normalizer_samples=0)
    svi = SVI(model, guide, Adam({"lr": 0.05, "betas": (0.5, 0.999)}), loss)
    path = []
    for _ in range(300):
        svi.step()
        path.append(1 / 16 + energy.weight.exp().item())
    assert np.mean(path[-100:]) == pytest.approx(0.25, rel=0.06)


def test_negatives_come_from_the_sampler_of_the_site_or_from_chains():
    seen = []
    energy = Bowl()

    def watched(x):
        seen.append(len(x))
        return torch.zeros(len(x)) * judge.weights[0]

    judge = quadratic(torch.zeros(3))
    objective = ebm.FDivergence("kl", sampler=ebm.MALA(0.5), num_steps=2, num_negatives=30)
    model = ebm.EnergyBased(energy, dist.Normal(0.0, 1.0)).expand((8,))
    assert objective.loss(model, torch.randn(8), critic=watched).shape == (8,)
    assert seen == [8 + 30]
    chains = ebm.PersistentChains(10, (), sampler=ebm.MALA(0.5), restart_probability=0.1)

    def guide(x):
        ebm.auxiliary("x", critic=judge, chains=chains)

    svi = SVI(
        observed(energy, dist.Normal(0.0, 1.0)),
        guide,
        Adam({"lr": 0.01}),
        ebm.EnergyELBO(objective),
    )
    svi.step(torch.randn(8))
    assert pyro.get_param_store()["x$chains"].shape == (10,)


def test_each_base_has_negatives_of_its_own():
    """Bases at 0 and 100: a draw of one is no draw of the other."""
    model = ebm.EnergyBased(lambda x: 0 * x, dist.Normal(torch.tensor([0.0, 100.0]), 1.0))
    objective = ebm.FDivergence("kl", sampler=ebm.MALA(0.1), num_negatives=4)
    value = objective.loss(model, torch.tensor([0.0, 100.0]), critic=lambda x: 1.0 * (x > 50))
    # KL: 1 + l - mean(e^l), with l = 0 in the one context and 1 in the other.
    assert value.tolist() == pytest.approx([0.0, 2.0 - np.e])


# --- what it refuses ---


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"one of .*'jensen_shannon'.*, got 'js'"):
        ebm.FDivergence("js")
    with pytest.raises(ValueError, match="'full', 'covariance'"):
        ebm.FDivergence("kl", gradient="half")
    with pytest.raises(ValueError, match="log_ratio_bound"):
        ebm.FDivergence("kl", log_ratio_bound=0.0)
    with pytest.raises(ValueError, match="critic_penalty"):
        ebm.FDivergence("kl", critic_penalty=-1.0)
    concave = ebm.Divergence.from_function(
        "concave", lambda u: -((u - 1) ** 2), lambda u: -2 * (u - 1), lambda u: 0 * u - 2
    )
    with pytest.raises(ValueError, match="convexity"):
        ebm.FDivergence(concave)


def test_a_critic_must_be_declared_and_draws_must_fit():
    model, optimizer = observed(Bowl(), dist.Normal(0.0, 1.0)), Adam({"lr": 0.01})
    svi = SVI(model, lambda x: None, optimizer, ebm.EnergyELBO(ebm.FDivergence("kl")))
    with pytest.raises(ValueError, match=r"declare \['chains', 'critic'\] .* site 'x'"):
        svi.step(torch.randn(8))
    distribution = ebm.EnergyBased(lambda x: x.square(), event_shape=())
    for draws, complaint in [(torch.zeros(1), "at least 2"), (torch.zeros(4, 2), "event shape")]:
        with pytest.raises(ValueError, match=complaint):
            ebm.FDivergence("kl").loss(
                distribution, torch.zeros(3), critic=lambda x: 0 * x, chains=draws
            )
