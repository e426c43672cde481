import warnings
from functools import partial

import numpy as np
import pytest

from helpers import linear_gaussian as truth
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives.loss import Loss

X = np.linspace(-2, 2, 16).reshape(8, 2)


class Contrast:
    """Energies of values against energies of chains."""

    def loss(self, *args, chains):
        *_, distribution, value = args  # NumPyro gives a random key first.
        assert chains.shape[1:] == distribution.event_shape
        negative = scaled_energy(distribution, chains).mean()
        return Loss(scaled_energy(distribution, value) - negative, {})


def walking(host, num_chains=5, stride=1.0, **options):
    sampler = host.Walk(stride)
    return host.ebm.PersistentChains(num_chains, (2,), sampler=sampler, num_steps=1, **options)


def latent_guide(host, chains=None):
    return host.attaching("z", host.mean_field_guide, chains=chains or walking(host))


def training(host, model, guide, elbo=None, optimizer=None, objective=None):
    # Without log-normalizers there is less to compile.
    loss = host.ebm.EnergyELBO(objective or Contrast(), elbo, num_normalizer_samples=0)
    return host.Training(model, guide, loss, optimizer)


@pytest.mark.parametrize(("elbo", "buffer_size"), [("Trace", None), ("Renyi x4 vectorized", 256)])
def test_contrastive_divergence_recovers_the_prior(host, elbo, buffer_size):
    chains = host.ebm.PersistentChains(
        128, (), sampler=host.ebm.MALA(1.0), num_steps=3, buffer_size=buffer_size
    )
    results = truth.run(
        host,
        elbo,
        num_steps=400,
        make_guide=lambda toy: host.attaching("z", toy.guide, chains=chains),
        objective=Contrast(),
        learning_rate=0.03,
        num_averaged=250,
    )
    # Over seeds the mean has a standard deviation of 2 %.
    assert results["precision"] == pytest.approx(truth.PRECISION, rel=0.08)
    assert results["loss"] == pytest.approx(truth.NEGATIVE_LOG_EVIDENCE, abs=0.05)


def acceptance(host, step_size):
    """Metric after a step with chains by MALA."""
    chains = host.ebm.PersistentChains(16, (2,), sampler=host.ebm.MALA(step_size), num_steps=2)
    guide, objective = latent_guide(host, chains), host.ebm.ContrastiveDivergence()
    run = training(host, host.latent_model(host.Bowl()), guide, objective=objective)
    run.step(X)
    return float(run.metrics(X)["z"]["acceptance_rate"])


def test_acceptance_of_chains_is_a_metric(host):
    assert 0.5 < acceptance(host, 0.1) <= 1.0
    # No move of a step size of 500 is accepted, which warns where the number is known.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert acceptance(host, 500.0) < 0.01
    assert ["is below .1" in str(it.message) for it in caught] == host.METRICS_ARE_KNOWN * [True]


def test_chains_without_acceptance_have_no_metric(host):
    run = training(host, host.latent_model(host.Bowl()), latent_guide(host))
    run.step(X)
    assert "acceptance_rate" not in run.metrics(X)["z"]


# --- moves ---


def test_chains_move_once_a_step(host, stock):
    run = training(host, host.latent_model(host.Bowl()), latent_guide(host), stock())
    run.step(X)
    first = run.chains("z$chains")
    assert first.shape == (5, 2)
    run.step(X)
    np.testing.assert_allclose(run.chains("z$chains"), first + 1, rtol=1e-5)
    assert run.param("energy.weight") != 0.5
    assert run.is_compiled_once


def test_evaluate_moves_nothing(host):
    run = training(host, host.latent_model(host.Bowl()), latent_guide(host))
    run.step(X)
    first = run.chains("z$chains")
    run.evaluate(X)
    run.step(X)
    np.testing.assert_allclose(run.chains("z$chains"), first + 1, rtol=1e-5)


def test_chains_move_on_the_present_energy(host):
    flat = host.observed_model(host.Bowl(), lambda u: host.ebm.EnergyBased(u, event_shape=()))
    chains = host.ebm.PersistentChains(6, (), sampler=host.Walk(None), num_steps=1)
    run = training(host, flat, host.attaching("x", chains=chains))
    run.step(X[:, 0])
    weight, before = run.param("energy.weight"), run.chains("x$chains")
    assert weight != 0.5
    run.step(X[:, 0])
    np.testing.assert_allclose(run.chains("x$chains"), weight * before**2, rtol=1e-5)


def test_moves_have_no_gradient(host):
    chains = host.ebm.PersistentChains(5, (2,), sampler=host.ebm.Langevin(0.3), num_steps=2)
    guide, model = host.attaching("x", chains=chains), host.observed_model(host.Bowl())
    run = training(host, model, guide, optimizer=host.sgd(1.0))
    run.step(X)
    # Of the sum over data of w x^2 - w mean(chains^2).
    gradient = (X**2).sum() - len(X) * (run.chains("x$chains") ** 2).sum(-1).mean()
    assert run.param("energy.weight") == pytest.approx(0.5 - gradient, abs=2e-5)


def test_every_site_has_its_own_chains(host):
    def model(x):
        one, two = host.register("one", energies[0]), host.register("two", energies[1])
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("x", host.prior(one), obs=x)
            host.ppl.sample("y", host.prior(two), obs=x)

    energies = host.Bowl(), host.Bowl()
    guide = host.attaching("y", chains=walking(host, 4, -1.0))
    run = training(host, model, host.attaching("x", guide, chains=walking(host, 3)))
    run.step(X)
    before = {name: run.chains(name) for name in ("x$chains", "y$chains")}
    run.step(X)
    np.testing.assert_allclose(run.chains("x$chains"), before["x$chains"] + 1, rtol=1e-5)
    np.testing.assert_allclose(run.chains("y$chains"), before["y$chains"] - 1, rtol=1e-5)


def test_metrics_continue_and_move_nothing(host):
    def objective():
        metrics = run.metrics(X)
        assert metrics.keys() == {"z"}
        return float(metrics["z"]["objective"])

    run = training(host, host.latent_model(host.Bowl()), latent_guide(host))
    assert abs(objective()) < 50
    run.step(X)
    far = np.full((5, 2), 1e3)
    run.fill("z$chains", far, X)
    # Two dimensions of weight (1000 + 1)^2, a weight near 0.5.
    weight = run.param("energy.weight")
    assert objective() == pytest.approx(-2 * weight * 1001.0**2, rel=1e-3)
    np.testing.assert_array_equal(run.chains("z$chains"), far)


# --- storage ---


def test_a_saved_run_continues_exactly(host, tmp_path):
    def state(run):
        losses = [run.step(X) for _ in range(2)]
        return *losses, run.param("energy.weight"), run.chains("z$chains")

    def fresh():
        return training(host, host.latent_model(host.Bowl()), latent_guide(host, chains))

    sampler = host.ebm.MALA(0.3)
    chains = host.ebm.PersistentChains(4, (2,), sampler=sampler, num_steps=2, buffer_size=6)
    run = fresh()
    first = state(run)
    run.save(tmp_path / "run")
    expected = state(run)
    resumed = fresh()
    resumed.load(tmp_path / "run", X)
    for found, value in zip(state(resumed), expected, strict=True):
        np.testing.assert_array_equal(found, value)
    assert not (first[-1] == expected[-1]).all()


def test_attached_chains_have_no_effect_elsewhere(host):
    host.ebm.attach("z", chains=walking(host))
    energy, guide = host.frozen(host.Bowl()), latent_guide(host)
    model = host.latent_model(None, lambda _: host.prior(energy))
    host.Training(model, guide, host.infer.Trace_ELBO()).step(X)
    params = {"shift": host.array(np.zeros(2))}
    draws = host.predict(model, guide, host.array(X), params=params, num_samples=3)
    assert draws["x"].shape == (3, 8, 2)


# --- one move ---


def advance(host, chains, values, loc=0.0, seed=0):
    """All chains and those that moved."""
    return host.advance(chains, host.prior(host.Bowl(), loc), values, seed)


def test_a_buffer_gives_a_random_part(host):
    chains, times = walking(host, 3, buffer_size=12), np.zeros(12)
    values = start = np.arange(12.0)[:, None] * 1000 * np.ones(2)
    for seed in range(200):
        after, moved = advance(host, chains, values, seed=seed)
        taken = (after != values).all(-1)
        assert taken.sum() == 3
        np.testing.assert_array_equal(np.sort(after[taken], 0), np.sort(moved, 0))
        values, times = after, times + taken
    np.testing.assert_allclose(values - start, times[:, None] * np.ones(2))
    # Each is taken in a quarter of 200 steps; five standard deviations of a binomial.
    assert abs(times - 50).max() < 5 * np.sqrt(200 * 0.25 * 0.75)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_restarts_are_draws_from_the_base(host, probability):
    chains = walking(host, 20000, 0.0, restart_probability=probability)
    _, moved = advance(host, chains, np.full(chains.shape, 100.0), loc=-5.0)
    restarted = moved[(moved != 100).all(-1)]
    deviation = np.sqrt(probability * (1 - probability) / 20000)
    assert len(restarted) / 20000 == pytest.approx(probability, abs=4 * deviation)
    if probability:
        assert restarted.mean() == pytest.approx(-5, abs=4 * 2 / np.sqrt(len(restarted)))
        assert restarted.std() == pytest.approx(2, rel=4 / np.sqrt(2 * len(restarted)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_diverged_chains_restart(host, bad):
    values = np.full((4, 2), 100.0)
    values[1, 0] = values[2] = bad
    after, _ = advance(host, walking(host, 4, 0.0), values)
    assert np.isfinite(after).all()
    assert (after[[0, 3]] == 100).all()
    assert (abs(after[[1, 2]]) < 20).all()


def test_constrained_supports(host):
    # With energy x the base Gamma(3, 1) becomes Gamma(3, 2).
    fn = host.ebm.EnergyBased(lambda x: x, host.dist.Gamma(3.0, 1.0))
    chains = host.ebm.PersistentChains(4000, (), sampler=host.ebm.MALA(0.3), num_steps=60)
    _, moved = host.advance(chains, fn, np.full(4000, 9.0))
    assert moved.mean() == pytest.approx(1.5, abs=4 * np.sqrt(0.75 / 4000))
    assert moved.var() == pytest.approx(0.75, rel=0.15)


# --- refusals ---


def wide_prior(host, energy):
    return host.ebm.EnergyBased(energy, host.dist.Normal(host.array(X), 1.0).to_event(1))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("event shape", r"'x\$chains' to have the event shape of its site, \(2,\), got \(3,\)"),
        ("wide base", r"one distribution .* of 'x\$chains', got .* shape \(8,\)"),
        ("unwanted", r"attach nothing to .* got \['chains'\]"),
        ("other chains", r"values of 'x\$chains' to have shape \(6, 2\), got \(5,"),
    ],
)
def test_refusals(host, case, message):
    chains = walking(host, 6 if case == "other chains" else 5)
    if case == "event shape":
        chains = host.ebm.PersistentChains(4, (3,))
    make_prior = partial(wide_prior, host) if case == "wide base" else host.prior
    objective = host.ebm.EnergyDiscrepancy(variance=1.0) if case == "unwanted" else None
    model, guide = host.observed_model(host.Bowl(), make_prior), host.attaching("x", chains=chains)
    run = training(host, model, guide, objective=objective)
    run.fill("x$chains", np.zeros((5, 2)), X)
    with pytest.raises(ValueError, match=message):
        run.step(X)


def test_a_sampler_is_needed(host):
    with pytest.raises(TypeError, match="`sampler` to have init and step, .* got float"):
        host.ebm.PersistentChains(4, (), sampler=0.1)


# --- replica exchange ---


def test_all_levels_are_stored(host):
    """Chains that all start in one of two modes, behind a barrier of 10 nats, find the other."""

    def energy(x):
        return 2.0 * (x**2 - 1.5**2) ** 2 - 0.25 * x**2

    fn = host.ebm.EnergyBased(energy, host.dist.Normal(0.0, 2.0**0.5))
    sampler = host.ebm.ReplicaExchange(host.ebm.MALA(), temperatures=(16, 4, 1))
    chains = host.ebm.PersistentChains(500, (), sampler=sampler, buffer_size=600)
    values = np.full((600, 3), 1.5)
    values[:2] = np.nan
    for seed in range(20):
        values, moved = host.advance(chains, fn, values, seed=seed)
    assert (values.shape, moved.shape) == ((600, 3), (500,))
    assert np.isin(moved, values[:, -1]).all()
    assert (moved > 0).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(500))
    between = (abs(values) < 0.75).mean(0)
    assert between[0] > 0.1
    assert between[-1] < 0.02


def test_odd_pairs_swap_in_runs_of_one_step(host):
    """The pair of the coldest level is one of them."""
    fn = host.ebm.EnergyBased(lambda x: 2.0 * (x**2 - 4.0) ** 2, host.dist.Normal(0.0, 3.0))
    sampler = host.ebm.ReplicaExchange(host.ebm.MALA(), temperatures=(64, 8, 1))
    chains = host.ebm.PersistentChains(200, (), sampler=sampler, num_steps=1)
    values, shares = np.repeat([[-2.0, -2.0, 2.0]], 200, 0), []
    for seed in range(20):
        values, _ = host.advance(chains, fn, values, seed=seed)
        shares.append((values[:, -1] < 0).mean())
    # Coldest levels move to the other mode by swaps alone, all at once, and perhaps back.
    assert max(shares) > 0.2


@pytest.mark.parametrize("name", ["Gibbs", "GibbsWithGradients"])
def test_levels_of_codes(host, name):
    """Chains that all start with all bits 0 find the bits that are all 1, as probable."""
    base = host.dist.Bernoulli(host.array(np.full(4, 0.5))).to_event(1)
    fn = host.ebm.EnergyBased(lambda x: -((x.sum(-1) - 2.0) ** 2), base)
    sampler = host.ebm.ReplicaExchange(getattr(host.ebm, name)(), temperatures=(4.0, 1.0))
    chains = host.ebm.PersistentChains(1000, (4,), sampler=sampler, num_steps=40)
    values, moved = host.advance(chains, fn, np.zeros((1000, 2, 4)))
    assert (values.shape, moved.shape) == ((1000, 2, 4), (1000, 4))
    weights = np.array([1, 4, 6, 4, 1]) * np.exp((np.arange(5) - 2.0) ** 2)
    found = np.bincount(moved.sum(-1).astype(int), minlength=5) / 1000
    np.testing.assert_allclose(found, weights / weights.sum(), atol=4 * 0.5 / np.sqrt(1000))
