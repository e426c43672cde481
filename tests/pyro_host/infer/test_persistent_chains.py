import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import linear_gaussian as truth
from helpers.hosts.pyro import (
    Bowl,
    Walk,
    attaching,
    latent_model,
    mean_field_guide,
    observed_model,
    prior,
)
from helpers.linear_gaussian_pyro import run
from pyro.infer import SVI, Predictive, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.optim import Adam, AdamW

import pyro_ebm.pyro as ebm
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives.loss import Loss

X = torch.linspace(-2, 2, 16).reshape(8, 2)


class Contrast:
    """Energies of values against energies of chains; remembers the chains that it was given."""

    def __init__(self):
        self.seen = []

    def loss(self, distribution, value, *, chains):
        self.seen.append(chains)
        negative = scaled_energy(distribution, chains).mean()
        return Loss(scaled_energy(distribution, value) - negative, {})


def walking(num_chains=5, stride=1.0, **options):
    return ebm.PersistentChains(num_chains, (2,), sampler=Walk(stride), num_steps=1, **options)


def latent_guide(chains):
    return attaching("z", mean_field_guide, chains=chains)


def svi_of(model, guide, objective=None, elbo=None, optimizer=None):
    loss = ebm.EnergyELBO(objective or Contrast(), elbo, num_normalizer_samples=0)
    return SVI(model, guide, optimizer or Adam({"lr": 0.05}), loss)


def stored(name="z$chains"):
    return pyro.get_param_store()[name].detach().clone()


# --- training with them ---


@pytest.mark.parametrize(("elbo", "buffer_size"), [("Trace", None), ("Renyi x4 vectorized", 256)])
def test_contrastive_divergence_recovers_the_prior(elbo, buffer_size):
    chains = ebm.PersistentChains(
        128, (), sampler=ebm.MALA(1.0), num_steps=3, buffer_size=buffer_size
    )
    results = run(
        elbo,
        num_steps=400,
        make_guide=lambda toy: attaching("z", toy.guide, chains=chains),
        objective=Contrast(),
        learning_rate=0.03,
        num_averaged=250,
    )
    # Over seeds the mean has a standard deviation of 2 %.
    assert results["precision"] == pytest.approx(truth.PRECISION, rel=0.08)
    assert results["loss"] == pytest.approx(truth.NEGATIVE_LOG_EVIDENCE, abs=0.05)


# --- moves ---


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
def test_chains_move_once_a_step(elbo):
    objective = Contrast()
    svi = svi_of(latent_model(Bowl()), latent_guide(walking()), objective, elbo)
    svi.step(X)
    first = stored()
    for count in range(1, 4):
        svi.evaluate_loss(X)
        svi.step(X)
        torch.testing.assert_close(stored(), first + count)
    # One value of every step, for all particles.
    assert len({id(chains) for chains in objective.seen}) == 4
    for chains in objective.seen:
        assert chains.shape == (5, 2)
        assert not chains.requires_grad


def test_chains_move_on_the_present_energy():
    energy = Bowl()
    model = observed_model(energy, lambda energy: ebm.EnergyBased(energy, event_shape=()))
    chains = ebm.PersistentChains(6, (), sampler=Walk(None), num_steps=1)
    svi = svi_of(model, attaching("x", chains=chains))
    svi.step(X[:, 0])
    weight, before = energy.weight.item(), stored("x$chains")
    svi.step(X[:, 0])
    assert energy.weight.item() != weight
    torch.testing.assert_close(stored("x$chains"), weight * before**2)


def test_moves_have_no_gradient():
    energy, objective = Bowl(), Contrast()
    chains = ebm.PersistentChains(5, (2,), sampler=ebm.MALA(0.3), num_steps=3)
    guide = attaching("x", chains=chains)
    ebm.EnergyELBO(objective).loss_and_grads(observed_model(energy), guide, X)
    (chains,) = objective.seen
    # Of the sum over data of w x^2 - w mean(chains^2).
    expected = X.square().sum() - len(X) * chains.square().sum(-1).mean()
    torch.testing.assert_close(energy.weight.grad, expected)


def test_every_site_has_its_own_chains():
    one, two = Bowl(), Bowl()

    def model(x):
        pyro.module("one", one)
        pyro.module("two", two)
        with pyro.plate("data", len(x)):
            pyro.sample("x", prior(one), obs=x)
            pyro.sample("y", prior(two), obs=x)

    guide = attaching("x", attaching("y", chains=walking(4, -1.0)), chains=walking(3))
    svi = svi_of(model, guide)
    svi.step(X)
    first_x, first_y = stored("x$chains"), stored("y$chains")
    svi.step(X)
    torch.testing.assert_close(stored("x$chains"), first_x + 1)
    torch.testing.assert_close(stored("y$chains"), first_y - 1)


def test_metrics_move_nothing():
    model, guide, loss = latent_model(Bowl()), latent_guide(walking()), ebm.EnergyELBO(Contrast())
    assert loss.metrics(model, guide, X).keys() == {"z"}
    assert "z$chains" not in pyro.get_param_store()
    SVI(model, guide, Adam({"lr": 0.05}), loss).step(X)
    before = stored()
    loss.metrics(model, guide, X)
    assert torch.equal(stored(), before)


# --- storage ---


def test_no_optimizer_moves_them():
    energy = Bowl()
    decay = AdamW({"lr": 0.05, "weight_decay": 0.5})
    svi = svi_of(latent_model(energy), latent_guide(walking(stride=0.0)), optimizer=decay)
    svi.step(X)
    first, store = stored(), pyro.get_param_store()
    # As some do: every parameter in the store.
    tensors = [parameter for _, parameter in store.named_parameters()]
    everything = torch.optim.AdamW(tensors, lr=0.1, weight_decay=0.5)
    for _ in range(5):
        svi.step(X)
        energy.weight.grad = torch.ones(())
        everything.step()
    assert dict(store.named_parameters())["z$chains"].grad is None
    assert torch.equal(stored(), first)
    assert energy.weight.item() < 0.3


def test_a_saved_run_continues_exactly(tmp_path):
    chains = ebm.PersistentChains(4, (2,), sampler=ebm.MALA(0.3), num_steps=2, buffer_size=6)
    store = pyro.get_param_store()

    def steps(svi, num_steps):
        return [svi.step(X) for _ in range(num_steps)]

    svi = svi_of(latent_model(Bowl()), latent_guide(chains))
    steps(svi, 3)
    store.save(str(tmp_path / "store"))
    svi.optim.save(str(tmp_path / "optimizer"))
    random_state = torch.get_rng_state()
    expected, expected_chains = steps(svi, 3), stored()
    expected_weight = store["energy$$$weight"]

    pyro.clear_param_store()
    svi = svi_of(latent_model(Bowl()), latent_guide(chains))
    store.load(str(tmp_path / "store"))
    svi.optim.load(str(tmp_path / "optimizer"))
    torch.set_rng_state(random_state)
    assert steps(svi, 3) == expected
    assert torch.equal(stored(), expected_chains)
    assert torch.equal(store["energy$$$weight"], expected_weight)


def test_the_parameter_store_does_not_grow():
    svi = svi_of(latent_model(Bowl()), latent_guide(walking()))
    svi.step(X)
    store = pyro.get_param_store()
    size = len(store._param_to_name)
    svi.step(X)
    assert len(store._param_to_name) == size


def test_attached_chains_have_no_effect_elsewhere():
    guide, model = latent_guide(walking()), latent_model(Bowl().requires_grad_(False).eval())
    SVI(model, guide, Adam({"lr": 0.1}), Trace_ELBO(num_particles=2)).step(X)
    assert Predictive(model, guide=guide, num_samples=3)(X)["z"].shape == (3, 8, 2)
    assert "z$chains" not in pyro.get_param_store()


# --- one move ---


def advanced(chains, values, loc=0.0):
    with torch.no_grad():
        return chains.advance(prior(Bowl(), loc), values)


def test_a_buffer_gives_a_random_part():
    chains = walking(3, buffer_size=12)
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
def test_restarts_are_draws_from_the_base(probability):
    chains = walking(20000, 0.0, restart_probability=probability)
    _, moved = advanced(chains, torch.full(chains.shape, 100.0), loc=-5.0)
    restarted = moved[(moved != 100).all(-1)]
    deviation = np.sqrt(probability * (1 - probability) / 20000)
    assert len(restarted) / 20000 == pytest.approx(probability, abs=4 * deviation)
    if probability:
        assert restarted.mean().item() == pytest.approx(-5, abs=4 * 2 / np.sqrt(len(restarted)))
        assert restarted.std().item() == pytest.approx(2, rel=4 / np.sqrt(2 * len(restarted)))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_diverged_chains_restart(bad):
    values = torch.full((4, 2), 100.0)
    values[1, 0] = values[2] = bad
    after, _ = advanced(walking(4, 0.0), values)
    assert torch.isfinite(after).all()
    assert (after[[0, 3]] == 100).all()
    assert (after[[1, 2]].abs() < 20).all()


def test_constrained_supports():
    # With energy x the base Gamma(3, 1) becomes Gamma(3, 2).
    fn = ebm.EnergyBased(lambda x: x, dist.Gamma(3.0, 1.0))
    chains = ebm.PersistentChains(4000, (), sampler=ebm.MALA(0.3), num_steps=60)
    _, moved = chains.advance(fn, torch.full((4000,), 9.0))
    assert moved.mean().item() == pytest.approx(1.5, abs=4 * np.sqrt(0.75 / 4000))
    assert moved.var().item() == pytest.approx(0.75, rel=0.15)


# --- refusals ---

DISCREPANCY = ebm.EnergyDiscrepancy(variance=1.0)


def wide_prior(energy):
    return ebm.EnergyBased(energy, dist.Normal(X, 1.0).to_event(1))


@pytest.mark.parametrize(
    ("chains", "make_prior", "objective", "message"),
    [
        (
            ebm.PersistentChains(4, (3,)),
            prior,
            Contrast(),
            r"'x\$chains' to have the event shape of its site, \(2,\), got \(3,\)",
        ),
        (walking(), wide_prior, Contrast(), r"one base .* of 'x\$chains', got .* shape \(8,\)"),
        (walking(), prior, DISCREPANCY, r"attach nothing to .* got \['chains'\]"),
        (walking(6), prior, Contrast(), r"values of 'x\$chains' to have shape \(6, 2\), got \(5,"),
    ],
    ids=["event shape", "wide base", "unwanted", "other chains"],
)
def test_refusals(chains, make_prior, objective, message):
    pyro.param("x$chains", torch.zeros(5, 2))
    svi = svi_of(observed_model(Bowl(), make_prior), attaching("x", chains=chains), objective)
    with pytest.raises(ValueError, match=message):
        svi.step(X)


def test_a_sampler_is_needed():
    with pytest.raises(TypeError, match="`sampler` to have init and step, .* got float"):
        ebm.PersistentChains(4, (), sampler=0.1)
