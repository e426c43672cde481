import pickle
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from helpers import linear_gaussian as truth
from helpers.linear_gaussian_numpyro import Toy
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
from pyro_ebm.numpyro.samplers import TransitionInfo

MALA = ebm.MALA(0.3, num_steps=2)
X = jnp.linspace(-2, 2, 16).reshape(8, 2)


class Contrast:
    """Energies of values against energies of chains."""

    def loss(self, rng_key, distribution, value, *, chains):
        del rng_key
        assert chains.shape[1:] == distribution.event_shape
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

    def step(self, rng_key, potential, state):
        position = state.potential if self.stride is None else state.position + self.stride
        sure = jnp.ones_like(state.potential)
        return state._replace(position=position), TransitionInfo(sure, sure < 0)


class Bowl(eqx.Module):
    weight: jax.Array

    def __call__(self, z):
        return self.weight * (z.reshape(len(z), -1) ** 2).sum(-1)


def bowl():
    return Bowl(jnp.array(0.5))


def prior(energy, loc=0.0):
    return ebm.EnergyBased(energy, dist.Normal(jnp.full(2, loc), 2.0).to_event(1))


def latent_model(x):
    energy = eqx_module("energy", bowl())
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", prior(energy))
        numpyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def latent_guide(chains):
    def guide(x):
        ebm.auxiliary("z", chains=chains)
        shift = numpyro.param("shift", jnp.zeros(2))
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(x + shift, 0.5).to_event(1))

    return guide


def observed_model(x, fn=prior):
    energy = eqx_module("energy", bowl())
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", fn(energy), obs=x)


def empty_guide(chains):
    return lambda x: ebm.auxiliary("x", chains=chains)


def svi_of(model, guide, elbo=None, optimizer=None):
    # Without log-normalizers there is less to compile.
    loss = ebm.EnergyELBO(Contrast(), elbo, num_normalizer_samples=0)
    return SVI(model, guide, optimizer or optax.adam(0.05), loss)


def latent_svi(chains, elbo=None):
    return svi_of(latent_model, latent_guide(chains), elbo)


def kept(state, name="z$chains"):
    return state.mutable_state[name]


def walked(after, before, stride=1.0, name="z$chains"):
    """Whether every chain made one step; infinite ones are yet to start."""
    start, end = kept(before, name), kept(after, name)
    return bool(jnp.isfinite(start).all() and jnp.allclose(end, start + stride))


def step(svi, num_steps):
    """States after each of some steps."""
    update, states = jax.jit(svi.update), [svi.init(random.key(0), X)]
    for _ in range(num_steps):
        states.append(update(states[-1], X)[0])
    return states[1:]


# --- what they are for ---


@pytest.mark.parametrize(
    ("elbo", "buffer_size"),
    [(Trace_ELBO(), None), (RenyiELBO(alpha=0.5, num_particles=4), 256)],
)
def test_a_contrastive_objective_recovers_the_prior(elbo, buffer_size):
    toy, sampler = Toy("plate"), ebm.MALA(1.0, num_steps=3)
    chains = ebm.PersistentChains(128, (), sampler=sampler, buffer_size=buffer_size)

    def guide():
        ebm.auxiliary("z", chains=chains)
        toy.guide()

    svi = SVI(toy.model, guide, optax.adam(0.03), ebm.EnergyELBO(Contrast(), elbo))

    def step(state, _):
        state, loss = svi.update(state)
        return state, (loss / truth.NUM_DATA, 1 / 16 + jnp.exp(svi.get_params(state)["a"]))

    _, (losses, precisions) = jax.lax.scan(step, svi.init(random.key(0)), length=800)
    # Over seeds the mean has a standard deviation of 2 %.
    assert precisions[-500:].mean() == pytest.approx(truth.PRECISION, rel=0.06)
    assert losses[-500:].mean() == pytest.approx(truth.NEGATIVE_LOG_EVIDENCE, abs=0.05)


# --- how EnergyELBO moves them ---


@pytest.mark.parametrize(
    "elbo",
    [
        Trace_ELBO(),
        Trace_ELBO(4),
        TraceMeanField_ELBO(4),
        TraceGraph_ELBO(),
        RenyiELBO(),
    ],
)
def test_one_move_a_step_for_all_particles(elbo, caplog):
    svi = latent_svi(ebm.PersistentChains(5, (2,), sampler=Walk()), elbo)
    update, state = jax.jit(svi.update), svi.init(random.key(0), X)
    first, _ = update(state, X)
    with jax.log_compiles():
        last, _ = update(first, X)
    assert "Compiling" not in caplog.text
    assert walked(last, first)
    assert svi.get_params(last)["energy$params"].weight != 0.5
    # What a scan asks of its carry.
    assert jax.tree.map(jnp.shape, last) == jax.tree.map(jnp.shape, state)
    assert kept(last).dtype == kept(state).dtype


def test_with_a_bar_and_without_it_is_the_same_run():
    svi = latent_svi(ebm.PersistentChains(5, (2,), sampler=Walk()), Trace_ELBO(4))
    with jax.checking_leaks():
        scanned = svi.run(random.key(0), 3, X, progress_bar=False)
    bar = svi.run(random.key(0), 3, X, progress_bar=True, stable_update=True)
    assert jnp.allclose(scanned.losses, bar.losses, rtol=1e-5)
    assert jnp.allclose(kept(scanned.state), kept(bar.state), rtol=1e-4)


def test_evaluate_moves_nothing():
    svi = latent_svi(ebm.PersistentChains(5, (2,), sampler=Walk()))
    update, evaluate = jax.jit(svi.update), jax.jit(svi.evaluate)
    state, _ = update(svi.init(random.key(0), X), X)
    value = evaluate(state, X)
    after, loss = update(state, X)
    assert value == pytest.approx(float(loss), rel=1e-5)
    assert walked(after, state)


def test_they_move_on_the_energy_as_it_is():
    def model(x):
        observed_model(x[:, 0], lambda energy: ebm.EnergyBased(energy, event_shape=()))

    chains = ebm.PersistentChains(6, (), sampler=Walk(stride=None))
    svi = svi_of(model, empty_guide(chains))
    before, after = step(svi, 2)
    weight = svi.get_params(before)["energy$params"].weight
    assert weight != 0.5
    assert jnp.allclose(kept(after, "x$chains"), weight * kept(before, "x$chains") ** 2)


def test_their_moves_send_no_gradient():
    chains = ebm.PersistentChains(5, (2,), sampler=ebm.Langevin(0.3, num_steps=2))
    svi = svi_of(observed_model, empty_guide(chains), optimizer=optax.sgd(1.0))
    (state,) = step(svi, 1)
    # Of the sum over data of w x^2 - w mean(chains^2).
    gradient = (X**2).sum() - len(X) * (kept(state, "x$chains") ** 2).sum(-1).mean()
    moved = svi.get_params(state)["energy$params"].weight
    assert moved == pytest.approx(float(0.5 - gradient), rel=1e-5)


def test_every_site_has_its_own():
    def model(x):
        one, two = eqx_module("one", bowl()), eqx_module("two", bowl())
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", prior(one), obs=x)
            numpyro.sample("y", prior(two), obs=x)

    def guide(x):
        ebm.auxiliary("x", chains=ebm.PersistentChains(3, (2,), sampler=Walk()))
        ebm.auxiliary("y", chains=ebm.PersistentChains(4, (2,), sampler=Walk(-1.0)))

    svi = svi_of(model, guide)
    before, after = step(svi, 2)
    for name, stride in (("x$chains", 1), ("y$chains", -1)):
        assert walked(after, before, stride, name)


def test_other_mutable_sites_are_left_to_the_stock_elbo():
    def model(x):
        count = mutable("count", {"value": jnp.array(0.0)})
        count["value"] = count["value"] + 1
        latent_model(x)

    guide = latent_guide(ebm.PersistentChains(5, (2,), sampler=Walk()))
    svi = svi_of(model, guide)
    before, after = step(svi, 2)
    assert kept(after, "count")["value"] == kept(before, "count")["value"] + 1
    assert walked(after, before)


def test_reading_the_objective_goes_on_from_the_state():
    svi = latent_svi(ebm.PersistentChains(5, (2,), sampler=Walk()))
    params = svi.get_params(svi.init(random.key(0), X))
    far = {"z$chains": jnp.full((5, 2), 1e3)}

    def value(param_map):
        return svi.loss.health(random.key(1), param_map, svi.model, svi.guide, X)["z"]["objective"]

    assert abs(value(params)) < 50
    # Two dimensions of 0.5 (1000 + 1)^2.
    assert value(params | far) == pytest.approx(-(1001.0**2), rel=1e-3)


# --- how they are kept ---


def test_a_saved_run_goes_on_as_if_it_had_not_stopped():
    svi = latent_svi(ebm.PersistentChains(5, (2,), sampler=MALA, buffer_size=6))
    update, state = jax.jit(svi.update), svi.init(random.key(0), X)
    for count in range(4):
        if count == 2:
            # A key of JAX's new kind cannot be pickled; its numbers can.
            saved = pickle.dumps(state._replace(rng_key=random.key_data(state.rng_key)))
        state, _ = update(state, X)

    resumed = pickle.loads(saved)
    resumed = resumed._replace(rng_key=random.wrap_key_data(resumed.rng_key))
    assert not (kept(resumed) == kept(state)).all()
    for _ in range(2):
        resumed, _ = update(resumed, X)
    assert (kept(resumed) == kept(state)).all()
    params, expected = svi.get_params(resumed), svi.get_params(state)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), params, expected))


def test_declaring_them_is_harmless_elsewhere():
    guide = latent_guide(ebm.PersistentChains(5, (2,)))
    ebm.auxiliary("z", chains=ebm.PersistentChains(5, (2,)))

    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", prior(bowl()))
            numpyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    SVI(model, guide, optax.adam(0.1), Trace_ELBO()).run(random.key(0), 2, X, progress_bar=False)
    params = {"shift": jnp.zeros(2)}
    draws = Predictive(model, guide=guide, params=params, num_samples=3)(random.key(0), X)
    assert draws["x"].shape == (3, 8, 2)


# --- how they move ---


def advanced(seed, chains, values, loc=0.0):
    return chains.advance(random.key(seed), prior(bowl(), loc), values)


def test_a_buffer_gives_a_random_part_of_it():
    chains = ebm.PersistentChains(3, (2,), sampler=Walk(), buffer_size=12)
    values = start = jnp.broadcast_to(jnp.arange(12.0)[:, None] * 1000, (12, 2))
    times = np.zeros(12)
    for seed in range(200):
        after, moved = advanced(seed, chains, values)
        taken = np.asarray(after != values).all(-1)
        assert taken.sum() == 3
        np.testing.assert_array_equal(np.sort(np.asarray(after)[taken], 0), np.sort(moved, 0))
        times += taken
        values = after
    np.testing.assert_allclose(after - start, times[:, None] * np.ones(2))
    # Each is taken in a quarter of 200 steps; five standard deviations of a binomial.
    assert abs(times - 50).max() < 5 * np.sqrt(200 * 0.25 * 0.75)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_restarts_are_fresh_draws_from_the_base(probability):
    chains = ebm.PersistentChains(20000, (2,), sampler=Walk(0.0), restart_probability=probability)
    _, moved = advanced(0, chains, jnp.full(chains.shape, 100.0), loc=-5.0)
    restarted = moved[(moved != 100).all(-1)]
    deviation = np.sqrt(probability * (1 - probability) / 20000)
    assert len(restarted) / 20000 == pytest.approx(probability, abs=4 * deviation)
    if probability:
        assert restarted.mean() == pytest.approx(-5, abs=4 * 2 / np.sqrt(len(restarted)))
        assert restarted.std() == pytest.approx(2, rel=4 / np.sqrt(2 * len(restarted)))


@pytest.mark.parametrize("astray", [jnp.nan, jnp.inf])
def test_chains_that_ran_off_start_again(astray):
    chains = ebm.PersistentChains(4, (2,), sampler=Walk(0.0))
    values = jnp.full((4, 2), 100.0).at[1, 0].set(astray).at[2].set(astray)
    after, _ = advanced(0, chains, values)
    assert jnp.isfinite(after).all()
    assert (after[jnp.array([0, 3])] == 100).all()
    assert (jnp.abs(after[1:3]) < 20).all()


def test_on_a_constrained_support():
    # With energy x the base Gamma(3, 1) becomes Gamma(3, 2).
    fn = ebm.EnergyBased(lambda x: x, dist.Gamma(3.0, 1.0))
    chains = ebm.PersistentChains(4000, (), sampler=ebm.MALA(0.3, num_steps=60))
    _, moved = chains.advance(random.key(0), fn, jnp.full((4000,), 9.0))
    assert moved.mean() == pytest.approx(1.5, abs=4 * np.sqrt(0.75 / 4000))
    assert moved.var() == pytest.approx(0.75, rel=0.15)


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


def refuse(message, model, guide, objective=None, mutable_state=None):
    svi = SVI(model, guide, optax.adam(0.1), ebm.EnergyELBO(objective or Contrast()))
    state = svi.init(random.key(0), X)
    with pytest.raises(ValueError, match=message):
        svi.update(state._replace(mutable_state=mutable_state or state.mutable_state), X)


def test_chains_fit_their_site():
    message = r"'x\$chains' to have the event shape of its site, \(2,\), got \(3,\)"
    refuse(message, observed_model, empty_guide(ebm.PersistentChains(4, (3,))))

    def wide(x):
        observed_model(x, lambda energy: ebm.EnergyBased(energy, dist.Normal(X, 1.0).to_event(1)))

    message = r"one base for all batch elements .*'x\$chains' .* of batch shape \(8,\)"
    refuse(message, wide, empty_guide(ebm.PersistentChains(4, (2,))))


def test_chains_fit_the_state():
    guide = empty_guide(ebm.PersistentChains(4, (2,)))
    message = r"kept of 'x\$chains' to have shape \(4, 2\), got \(5, 2\)"
    refuse(message, observed_model, guide, mutable_state={"x$chains": jnp.zeros((5, 2))})


def test_chains_are_for_objectives_that_ask():
    guide = empty_guide(ebm.PersistentChains(4, (2,)))
    message = r"declare nothing for .* got \['chains'\]"
    refuse(message, observed_model, guide, ebm.EnergyDiscrepancy(variance=1.0))
