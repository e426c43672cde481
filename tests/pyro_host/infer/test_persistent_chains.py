from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import linear_gaussian as truth
from helpers.linear_gaussian_pyro import ELBOS, Toy
from pyro.infer import SVI, Predictive, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.optim import Adam, AdamW
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.samplers import TransitionInfo

X = torch.linspace(-2, 2, 16).reshape(8, 2)


class Contrast:
    """Energies of values against energies of chains; remembers the chains that it was given."""

    def __init__(self):
        self.seen = []

    def loss(self, distribution, value, *, chains):
        self.seen.append(chains)
        return distribution.evaluate(value) - distribution.evaluate(chains).mean()


@dataclass(frozen=True)
class Walk:
    """A sampler without noise: a step of a fixed length, or, with None, to the potential there."""

    stride: float | None = 1.0
    num_steps: int = 1
    target_acceptance: float | None = None
    adapt_scale: bool = False

    def init(self, potential, position):
        return ebm.MALA(1.0).init(potential, position)

    def step(self, potential, state):
        position = state.potential if self.stride is None else state.position + self.stride
        sure = torch.ones_like(state.potential)
        return state._replace(position=position), TransitionInfo(sure, sure < 0)


class Bowl(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, z):
        return self.weight * z.reshape(len(z), -1).square().sum(-1)


def prior(energy, loc=0.0):
    return ebm.EnergyBased(energy, dist.Normal(torch.full((2,), loc), 2.0).to_event(1))


def latent_model(energy):
    def model(x):
        pyro.module("energy", energy, update_module_params=True)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(energy))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    return model


def latent_guide(chains):
    def guide(x):
        ebm.auxiliary("z", chains=chains)
        shift = pyro.param("shift", torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x + shift, 0.5).to_event(1))

    return guide


def observed_model(energy, fn=None):
    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            pyro.sample("x", fn or prior(energy), obs=x)

    return model


def empty_guide(chains):
    return lambda x: ebm.auxiliary("x", chains=chains)


def latent_svi(energy, chains, elbo=None, objective=None, optimizer=None):
    loss = ebm.EnergyELBO(objective or Contrast(), elbo)
    optimizer = optimizer or Adam({"lr": 0.05})
    return SVI(latent_model(energy), latent_guide(chains), optimizer, loss)


def kept(name="z$chains"):
    return pyro.get_param_store()[name].detach().clone()


# --- what they are for ---


@pytest.mark.parametrize(("elbo", "buffer_size"), [("Trace", None), ("Renyi x4 vectorized", 256)])
def test_a_contrastive_objective_recovers_the_prior(elbo, buffer_size):
    toy, sampler = Toy("plate"), ebm.MALA(1.0, num_steps=3)
    chains = ebm.PersistentChains(128, (), sampler=sampler, buffer_size=buffer_size)

    def guide():
        ebm.auxiliary("z", chains=chains)
        toy.guide()

    loss = ebm.EnergyELBO(Contrast(), ELBOS[elbo]())
    svi = SVI(toy.model, guide, Adam({"lr": 0.03}), loss)
    precisions, losses = [], []
    for _ in range(400):
        losses.append(svi.step() / truth.NUM_DATA)
        precisions.append(1 / 16 + toy.energy.a.detach().exp().item())
    # Over seeds the mean has a standard deviation of 2 %.
    assert sum(precisions[-250:]) / 250 == pytest.approx(truth.PRECISION, rel=0.08)
    assert sum(losses[-250:]) / 250 == pytest.approx(truth.NEGATIVE_LOG_EVIDENCE, abs=0.05)


# --- how EnergyELBO moves them ---


@pytest.mark.parametrize(
    "elbo",
    [
        Trace_ELBO(),
        Trace_ELBO(num_particles=3),
        Trace_ELBO(num_particles=3, vectorize_particles=True),
        TraceMeanField_ELBO(num_particles=2),
        TraceGraph_ELBO(num_particles=2),
        RenyiELBO(num_particles=2),
    ],
)
def test_one_move_a_step_for_all_particles(elbo):
    objective = Contrast()
    chains = ebm.PersistentChains(5, (2,), sampler=Walk())
    svi = latent_svi(Bowl(), chains, elbo, objective)
    svi.step(X)
    first = kept()
    for count in range(1, 4):
        svi.evaluate_loss(X)
        svi.step(X)
        torch.testing.assert_close(kept(), first + count)
    # One value of every step, though each particle may ask.
    assert len({id(chains) for chains in objective.seen}) == 4
    for chains in objective.seen:
        assert chains.shape == (5, 2)
        assert not chains.requires_grad


def test_they_move_on_the_energy_as_it_is():
    energy = Bowl()
    chains = ebm.PersistentChains(6, (), sampler=Walk(stride=None))
    model = observed_model(energy, ebm.EnergyBased(energy, event_shape=()))
    loss = ebm.EnergyELBO(Contrast(), num_normalizer_samples=0)
    svi = SVI(model, empty_guide(chains), Adam({"lr": 0.1}), loss)
    svi.step(X[:, 0])
    weight, before = energy.weight.item(), kept("x$chains")
    svi.step(X[:, 0])
    assert energy.weight.item() != weight
    torch.testing.assert_close(kept("x$chains"), weight * before**2)


def test_their_moves_send_no_gradient():
    energy, objective = Bowl(), Contrast()
    guide = empty_guide(ebm.PersistentChains(5, (2,), sampler=ebm.MALA(0.3, num_steps=3)))
    ebm.EnergyELBO(objective).loss_and_grads(observed_model(energy), guide, X)
    (chains,) = objective.seen
    # Of the sum over data of w x^2 - w mean(chains^2).
    expected = X.square().sum() - len(X) * chains.square().sum(-1).mean()
    torch.testing.assert_close(energy.weight.grad, expected)


def test_every_site_has_its_own():
    one, two = Bowl(), Bowl()

    def model(x):
        pyro.module("one", one)
        pyro.module("two", two)
        with pyro.plate("data", len(x)):
            pyro.sample("x", prior(one), obs=x)
            pyro.sample("y", prior(two), obs=x)

    def guide(x):
        ebm.auxiliary("x", chains=ebm.PersistentChains(3, (2,), sampler=Walk()))
        ebm.auxiliary("y", chains=ebm.PersistentChains(4, (2,), sampler=Walk(-1.0)))

    svi = SVI(model, guide, Adam({"lr": 0.0}), ebm.EnergyELBO(Contrast()))
    svi.step(X)
    first_x, first_y = kept("x$chains"), kept("y$chains")
    svi.step(X)
    torch.testing.assert_close(kept("x$chains"), first_x + 1)
    torch.testing.assert_close(kept("y$chains"), first_y - 1)


def test_reading_the_objective_moves_nothing():
    chains = ebm.PersistentChains(5, (2,), sampler=Walk())
    loss = ebm.EnergyELBO(Contrast())
    model, guide = latent_model(Bowl()), latent_guide(chains)
    assert loss.health(model, guide, X).keys() == {"z"}
    assert "z$chains" not in pyro.get_param_store()
    SVI(model, guide, Adam({"lr": 0.05}), loss).step(X)
    before = kept()
    loss.check_health(model, guide, X)
    assert torch.equal(kept(), before)


# --- how they are kept ---


def test_no_optimizer_moves_them():
    energy = Bowl()
    chains = ebm.PersistentChains(5, (2,), sampler=Walk(0.0))
    svi = latent_svi(energy, chains, optimizer=AdamW({"lr": 0.05, "weight_decay": 0.5}))
    svi.step(X)
    first = kept()
    store = pyro.get_param_store()
    # As some do: every parameter that the store knows.
    tensors = [parameter for _, parameter in store.named_parameters()]
    everything = torch.optim.AdamW(tensors, lr=0.1, weight_decay=0.5)
    for _ in range(5):
        svi.step(X)
        energy.weight.grad = torch.ones(())
        everything.step()
    assert dict(store.named_parameters())["z$chains"].grad is None
    assert torch.equal(kept(), first)
    assert energy.weight.item() < 0.3


def test_a_saved_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    chains = ebm.PersistentChains(4, (2,), sampler=ebm.MALA(0.3, num_steps=2), buffer_size=6)
    store = pyro.get_param_store()

    def run(svi, num_steps):
        return [svi.step(X) for _ in range(num_steps)]

    svi = latent_svi(Bowl(), chains)
    run(svi, 3)
    store.save(str(tmp_path / "store"))
    svi.optim.save(str(tmp_path / "optimizer"))
    random_state = torch.get_rng_state()
    expected, expected_chains, expected_weight = run(svi, 3), kept(), store["energy$$$weight"]

    pyro.clear_param_store()
    svi = latent_svi(Bowl(), chains)
    store.load(str(tmp_path / "store"))
    svi.optim.load(str(tmp_path / "optimizer"))
    torch.set_rng_state(random_state)
    assert run(svi, 3) == expected
    assert torch.equal(kept(), expected_chains)
    assert torch.equal(store["energy$$$weight"], expected_weight)


def test_the_parameter_store_does_not_grow():
    svi = latent_svi(Bowl(), ebm.PersistentChains(5, (2,), sampler=Walk()))
    svi.step(X)
    store = pyro.get_param_store()
    size = len(store._param_to_name)
    svi.step(X)
    assert len(store._param_to_name) == size


def test_declaring_them_is_harmless_elsewhere():
    guide = latent_guide(ebm.PersistentChains(5, (2,)))
    model = latent_model(Bowl().requires_grad_(False).eval())
    SVI(model, guide, Adam({"lr": 0.1}), Trace_ELBO(num_particles=2)).step(X)
    draws = Predictive(model, guide=guide, num_samples=3)(X)
    assert draws["z"].shape == (3, 8, 2)
    assert "z$chains" not in pyro.get_param_store()


# --- how they move ---


def advanced(chains, values, loc=0.0):
    with torch.no_grad():
        return chains.advance(prior(Bowl(), loc), values)


def test_a_buffer_gives_a_random_part_of_it():
    chains = ebm.PersistentChains(3, (2,), sampler=Walk(), buffer_size=12)
    values = torch.arange(12.0)[:, None].expand(12, 2) * 1000
    times = torch.zeros(12)
    for _ in range(400):
        after, moved = advanced(chains, values)
        taken = (after != values).all(-1)
        assert taken.sum() == 3
        torch.testing.assert_close(after[taken].sort(0).values, moved.sort(0).values)
        torch.testing.assert_close(after[taken], values[taken] + 1)
        values, times = after, times + taken
    # Each is taken in a quarter of 400 steps; five standard deviations of a binomial.
    assert (times - 100).abs().max() < 5 * np.sqrt(400 * 0.25 * 0.75)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_restarts_are_fresh_draws_from_the_base(probability):
    chains = ebm.PersistentChains(20000, (2,), sampler=Walk(0.0), restart_probability=probability)
    values = torch.full(chains.shape, 100.0)
    _, moved = advanced(chains, values, loc=-5.0)
    restarted = moved[(moved != 100).all(-1)]
    deviation = np.sqrt(probability * (1 - probability) / 20000)
    assert len(restarted) / 20000 == pytest.approx(probability, abs=4 * deviation)
    if probability:
        assert restarted.mean().item() == pytest.approx(-5, abs=4 * 2 / np.sqrt(len(restarted)))
        assert restarted.std().item() == pytest.approx(2, rel=4 / np.sqrt(2 * len(restarted)))


@pytest.mark.parametrize("astray", [torch.nan, torch.inf])
def test_chains_that_ran_off_start_again(astray):
    chains = ebm.PersistentChains(4, (2,), sampler=Walk(0.0))
    values = torch.full((4, 2), 100.0)
    values[1, 0] = values[2] = astray
    after, _ = advanced(chains, values)
    assert torch.isfinite(after).all()
    assert (after[[0, 3]] == 100).all()
    assert (after[[1, 2]].abs() < 20).all()


def test_on_a_constrained_support():
    # With energy x the base Gamma(3, 1) becomes Gamma(3, 2).
    fn = ebm.EnergyBased(lambda x: x, dist.Gamma(3.0, 1.0))
    chains = ebm.PersistentChains(4000, (), sampler=ebm.MALA(0.3, num_steps=60))
    _, moved = chains.advance(fn, torch.full((4000,), 9.0))
    assert moved.mean().item() == pytest.approx(1.5, abs=4 * np.sqrt(0.75 / 4000))
    assert moved.var().item() == pytest.approx(0.75, rel=0.15)


# --- what they refuse ---


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, ()), {}, "`num_chains` to be an integer of at least 1, got 0"),
        ((2.5, ()), {}, "`num_chains` to be an integer of at least 1, got 2.5"),
        ((4, 2), {}, "`event_shape` to be a tuple of integers, got 2"),
        ((4, (0,)), {}, "`event_shape` to be an integer of at least 1, got 0"),
        ((4, ()), {"buffer_size": 3}, "`buffer_size` to be an integer of at least 4, got 3"),
        ((4, ()), {"restart_probability": -0.1}, "number from 0 to 1, got -0.1"),
        ((4, ()), {"restart_probability": 1.1}, "number from 0 to 1, got 1.1"),
        ((4, ()), {"restart_probability": None}, "number from 0 to 1, got None"),
    ],
)
def test_wrong_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        ebm.PersistentChains(*arguments, **options)


def test_a_sampler_is_needed():
    with pytest.raises(TypeError, match="`sampler` to have init and step, got float"):
        ebm.PersistentChains(4, (), sampler=0.1)


def refuse(message, chains, fn=None, x=X):
    energy = Bowl()
    svi = SVI(
        observed_model(energy, fn and fn(energy)),
        empty_guide(chains),
        Adam({"lr": 0.1}),
        ebm.EnergyELBO(Contrast()),
    )
    with pytest.raises(ValueError, match=message):
        svi.step(x)


def test_chains_fit_their_site():
    message = r"'x\$chains' to have the event shape of its site, \(2,\), got \(3,\)"
    refuse(message, ebm.PersistentChains(4, (3,)))
    message = r"one base for all batch elements .*'x\$chains' .* of batch shape \(8,\)"
    refuse(
        message,
        ebm.PersistentChains(4, (2,)),
        lambda energy: ebm.EnergyBased(energy, dist.Normal(X, 1.0).to_event(1)),
    )


def test_chains_fit_what_the_store_has():
    latent_svi(Bowl(), ebm.PersistentChains(5, (2,))).step(X)
    message = r"kept of 'z\$chains' to have shape \(4, 2\), got \(5, 2\)"
    with pytest.raises(ValueError, match=message):
        latent_svi(Bowl(), ebm.PersistentChains(4, (2,))).step(X)


def test_chains_are_for_objectives_that_ask():
    guide = latent_guide(ebm.PersistentChains(4, (2,)))
    loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=1.0))
    with pytest.raises(ValueError, match=r"declare nothing for .* got \['chains'\]"):
        SVI(latent_model(Bowl()), guide, Adam({"lr": 0.1}), loss).step(X)
