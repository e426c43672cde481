import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from helpers import linear_gaussian as truth
from helpers.hosts.numpyro import (
    Bowl,
    Walk,
    attaching,
    latent_model,
    mean_field_guide,
    observed_model,
    prior,
)
from helpers.linear_gaussian_numpyro import run
from jax import random
from numpyro.contrib.module import eqx_module
from numpyro.infer import (
    SVI,
    Predictive,
    RenyiELBO,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from numpyro.primitives import mutable

import pyro_ebm.numpyro as ebm
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives.loss import Loss

X = jnp.linspace(-2, 2, 16).reshape(8, 2)
LATENT, OBSERVED = latent_model(Bowl()), observed_model(Bowl())


class Contrast:
    """Energies of values against energies of chains."""

    def loss(self, rng_key, distribution, value, *, chains):
        assert chains.shape[1:] == distribution.event_shape
        negative = scaled_energy(distribution, chains).mean()
        return Loss(scaled_energy(distribution, value) - negative, {})


def walking(num_chains=5, stride=1.0, **options):
    return ebm.PersistentChains(num_chains, (2,), sampler=Walk(stride), num_steps=1, **options)


def latent_guide(chains):
    return attaching("z", mean_field_guide, chains=chains)


def svi_of(model, guide, objective=None, elbo=None, optimizer=None):
    # Without log-normalizers there is less to compile.
    loss = ebm.EnergyELBO(objective or Contrast(), elbo, num_normalizer_samples=0)
    return SVI(model, guide, optimizer or optax.adam(0.05), loss)


def stored(state, name="z$chains"):
    return state.mutable_state[name]


def has_walked(after, before, stride=1.0, name="z$chains"):
    """Whether every chain made one step; infinite ones are yet to start."""
    start, end = stored(before, name), stored(after, name)
    return bool(jnp.isfinite(start).all() and jnp.allclose(end, start + stride))


def steps(svi, num_steps):
    """States after each of some steps."""
    update, states = jax.jit(svi.update), [svi.init(random.key(0), X)]
    for _ in range(num_steps):
        states.append(update(states[-1], X)[0])
    return states[1:]


# --- training with them ---


@pytest.mark.parametrize(
    ("elbo", "buffer_size"), [("Trace", None), (RenyiELBO(alpha=0.5, num_particles=4), 256)]
)
def test_contrastive_divergence_recovers_the_prior(elbo, buffer_size):
    chains = ebm.PersistentChains(
        128, (), sampler=ebm.MALA(1.0), num_steps=3, buffer_size=buffer_size
    )
    results = run(
        elbo,
        num_steps=800,
        make_guide=lambda toy: attaching("z", toy.guide, chains=chains),
        objective=Contrast(),
        learning_rate=0.03,
    )
    # Over seeds the mean has a standard deviation of 2 %.
    assert results["precision"] == pytest.approx(truth.PRECISION, rel=0.06)
    assert results["loss"] == pytest.approx(truth.NEGATIVE_LOG_EVIDENCE, abs=0.05)


# --- moves ---


@pytest.mark.parametrize(
    "elbo", [Trace_ELBO(), Trace_ELBO(4), TraceMeanField_ELBO(4), TraceGraph_ELBO(), RenyiELBO()]
)
def test_chains_move_once_a_step(elbo, caplog):
    svi = svi_of(LATENT, latent_guide(walking()), elbo=elbo)
    update, state = jax.jit(svi.update), svi.init(random.key(0), X)
    first, _ = update(state, X)
    with jax.log_compiles():
        last, _ = update(first, X)
    assert "Compiling" not in caplog.text
    assert has_walked(last, first)
    assert svi.get_params(last)["energy$params"].weight != 0.5
    # A scan needs this of its carry.
    assert jax.tree.map(jnp.shape, last) == jax.tree.map(jnp.shape, state)
    assert stored(last).dtype == stored(state).dtype


def test_a_progress_bar_makes_no_difference():
    svi = svi_of(LATENT, latent_guide(walking()), elbo=Trace_ELBO(4))
    with jax.checking_leaks():
        scanned = svi.run(random.key(0), 3, X, progress_bar=False)
    bar = svi.run(random.key(0), 3, X, progress_bar=True, stable_update=True)
    assert jnp.allclose(scanned.losses, bar.losses, rtol=1e-5)
    assert jnp.allclose(stored(scanned.state), stored(bar.state), rtol=1e-4)


def test_evaluate_moves_nothing():
    svi = svi_of(LATENT, latent_guide(walking()))
    update, evaluate = jax.jit(svi.update), jax.jit(svi.evaluate)
    state, _ = update(svi.init(random.key(0), X), X)
    value = evaluate(state, X)
    after, loss = update(state, X)
    assert value == pytest.approx(float(loss), rel=1e-5)
    assert has_walked(after, state)


def test_chains_move_on_the_present_energy():
    model = observed_model(Bowl(), lambda energy: ebm.EnergyBased(energy, event_shape=()))
    chains = ebm.PersistentChains(6, (), sampler=Walk(None), num_steps=1)
    svi = svi_of(lambda x: model(x[:, 0]), attaching("x", chains=chains))
    before, after = steps(svi, 2)
    weight = svi.get_params(before)["energy$params"].weight
    assert weight != 0.5
    assert jnp.allclose(stored(after, "x$chains"), weight * stored(before, "x$chains") ** 2)


def test_moves_have_no_gradient():
    chains = ebm.PersistentChains(5, (2,), sampler=ebm.Langevin(0.3), num_steps=2)
    svi = svi_of(OBSERVED, attaching("x", chains=chains), optimizer=optax.sgd(1.0))
    (state,) = steps(svi, 1)
    # Of the sum over data of w x^2 - w mean(chains^2).
    gradient = (X**2).sum() - len(X) * (stored(state, "x$chains") ** 2).sum(-1).mean()
    moved = svi.get_params(state)["energy$params"].weight
    assert moved == pytest.approx(float(0.5 - gradient), rel=1e-5)


def test_every_site_has_its_own_chains():
    def model(x):
        one, two = eqx_module("one", Bowl()), eqx_module("two", Bowl())
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", prior(one), obs=x)
            numpyro.sample("y", prior(two), obs=x)

    guide = attaching("x", attaching("y", chains=walking(4, -1.0)), chains=walking(3))
    before, after = steps(svi_of(model, guide), 2)
    assert has_walked(after, before, 1, "x$chains")
    assert has_walked(after, before, -1, "y$chains")


def test_other_mutable_sites_are_left_to_the_stock_elbo():
    def model(x):
        count = mutable("count", {"value": jnp.array(0.0)})
        count["value"] = count["value"] + 1
        LATENT(x)

    before, after = steps(svi_of(model, latent_guide(walking())), 2)
    assert stored(after, "count")["value"] == stored(before, "count")["value"] + 1
    assert has_walked(after, before)


def test_metrics_continue_from_the_state():
    svi = svi_of(LATENT, latent_guide(walking()))
    params = svi.get_params(svi.init(random.key(0), X))
    far = {"z$chains": jnp.full((5, 2), 1e3)}

    def value(param_map):
        metrics = svi.loss.metrics(random.key(1), param_map, svi.model, svi.guide, X)
        return metrics["z"]["objective"]

    assert abs(value(params)) < 50
    # Two dimensions of 0.5 (1000 + 1)^2.
    assert value(params | far) == pytest.approx(-(1001.0**2), rel=1e-3)


# --- storage ---


def test_a_saved_run_continues_exactly():
    chains = ebm.PersistentChains(5, (2,), sampler=ebm.MALA(0.3), num_steps=2, buffer_size=6)
    svi = svi_of(LATENT, latent_guide(chains))
    update, state = jax.jit(svi.update), svi.init(random.key(0), X)
    for count in range(4):
        if count == 2:
            # A key of JAX's new kind cannot be pickled; its numbers can.
            saved = pickle.dumps(state._replace(rng_key=random.key_data(state.rng_key)))
        state, _ = update(state, X)

    resumed = pickle.loads(saved)
    resumed = resumed._replace(rng_key=random.wrap_key_data(resumed.rng_key))
    assert not (stored(resumed) == stored(state)).all()
    for _ in range(2):
        resumed, _ = update(resumed, X)
    assert (stored(resumed) == stored(state)).all()
    params, expected = svi.get_params(resumed), svi.get_params(state)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), params, expected))


def test_attached_chains_have_no_effect_elsewhere():
    ebm.attach("z", chains=walking())
    guide, model = latent_guide(walking()), latent_model(None, lambda _: prior(Bowl()))
    SVI(model, guide, optax.adam(0.1), Trace_ELBO()).run(random.key(0), 2, X, progress_bar=False)
    params = {"shift": jnp.zeros(2)}
    draws = Predictive(model, guide=guide, params=params, num_samples=3)(random.key(0), X)
    assert draws["x"].shape == (3, 8, 2)


# --- one move ---


def advanced(chains, values, loc=0.0, seed=0):
    return chains.advance(random.key(seed), prior(Bowl(), loc), values)


def test_a_buffer_gives_a_random_part():
    chains = walking(3, buffer_size=12)
    values = start = jnp.broadcast_to(jnp.arange(12.0)[:, None] * 1000, (12, 2))
    times = np.zeros(12)
    for seed in range(200):
        after, moved = advanced(chains, values, seed=seed)
        taken = np.asarray(after != values).all(-1)
        assert taken.sum() == 3
        np.testing.assert_array_equal(np.sort(np.asarray(after)[taken], 0), np.sort(moved, 0))
        values, times = after, times + taken
    np.testing.assert_allclose(values - start, times[:, None] * np.ones(2))
    # Each is taken in a quarter of 200 steps; five standard deviations of a binomial.
    assert abs(times - 50).max() < 5 * np.sqrt(200 * 0.25 * 0.75)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_restarts_are_draws_from_the_base(probability):
    chains = walking(20000, 0.0, restart_probability=probability)
    _, moved = advanced(chains, jnp.full(chains.shape, 100.0), loc=-5.0)
    restarted = moved[(moved != 100).all(-1)]
    deviation = np.sqrt(probability * (1 - probability) / 20000)
    assert len(restarted) / 20000 == pytest.approx(probability, abs=4 * deviation)
    if probability:
        assert restarted.mean() == pytest.approx(-5, abs=4 * 2 / np.sqrt(len(restarted)))
        assert restarted.std() == pytest.approx(2, rel=4 / np.sqrt(2 * len(restarted)))


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_diverged_chains_restart(bad):
    values = jnp.full((4, 2), 100.0).at[1, 0].set(bad).at[2].set(bad)
    after, _ = advanced(walking(4, 0.0), values)
    assert jnp.isfinite(after).all()
    assert (after[jnp.array([0, 3])] == 100).all()
    assert (jnp.abs(after[1:3]) < 20).all()


def test_constrained_supports():
    # With energy x the base Gamma(3, 1) becomes Gamma(3, 2).
    fn = ebm.EnergyBased(lambda x: x, dist.Gamma(3.0, 1.0))
    chains = ebm.PersistentChains(4000, (), sampler=ebm.MALA(0.3), num_steps=60)
    _, moved = chains.advance(random.key(0), fn, jnp.full((4000,), 9.0))
    assert moved.mean() == pytest.approx(1.5, abs=4 * np.sqrt(0.75 / 4000))
    assert moved.var() == pytest.approx(0.75, rel=0.15)


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
    svi = svi_of(observed_model(Bowl(), make_prior), attaching("x", chains=chains), objective)
    state = svi.init(random.key(0), X)._replace(mutable_state={"x$chains": jnp.zeros((5, 2))})
    with pytest.raises(ValueError, match=message):
        svi.update(state, X)


def test_a_sampler_is_needed():
    with pytest.raises(TypeError, match="`sampler` to have init and step, .* got float"):
        ebm.PersistentChains(4, (), sampler=0.1)
