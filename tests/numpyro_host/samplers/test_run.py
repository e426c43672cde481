import math
from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from helpers.targets import normal_p_value
from jax import lax, random

import pyro_ebm.numpyro as ebm
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.numpyro.samplers.run import _keep, move_values, short_run

KEY = random.key(0)
NORMAL = dist.Normal(0.0, 1.0)

run_chains = partial(ebm.run_chains, KEY, progress_bar=False)


@pytest.mark.parametrize("sampler", [ebm.Langevin(0.1), ebm.MALA(0.1)])
def test_one_gradient_a_step(sampler):
    gradients = []

    def potential(x):
        gradients.append(None)
        return (x**4).sum(-1)

    state = sampler.init(potential, jnp.ones((3, 2)))
    assert len(gradients) == 1
    state, info = sampler.step(KEY, potential, state)
    assert len(gradients) == 2
    if state.potential is not None:
        assert jnp.allclose(state.potential, (state.position**4).sum(-1))
    assert jnp.allclose(state.gradient, 4 * state.position**3)
    assert info.diverging.shape == info.acceptance_rate.shape == (3,)


def test_divergence():
    def half_defined(x):
        return jnp.where(x > 0, jnp.nan, 0.5 * x**2)

    def run(sampler, potential):
        keys, start = random.split(KEY, 10), sampler.init(potential, -jnp.ones(200))
        return lax.scan(lambda state, key: sampler.step(key, potential, state), start, keys)

    state, info = run(ebm.MALA(1.0), half_defined)
    assert info.diverging.any()
    assert jnp.isfinite(state.position).all()
    state, info = run(ebm.Langevin(1.0), lambda x: jnp.exp(x**2))
    assert info.diverging.any()
    assert (info.diverging[-1] == ~jnp.isfinite(state.position)).all()


def test_short_run_is_a_run_of_steps():
    sampler, start = ebm.MALA(0.5), random.normal(KEY, (7,))
    state = sampler.init(jnp.square, start)
    for key in random.split(KEY, 3):
        state, _ = sampler.step(key, jnp.square, state)
    moved = short_run(KEY, sampler, jnp.square, start, 3)
    assert jnp.allclose(moved, state.position, rtol=1e-5)


def test_moved_values_stay_in_the_support():
    distribution, value = dist.Gamma(3.0, 2.0), random.uniform(KEY, (500,))
    moved = move_values(KEY, ebm.MALA(0.2), distribution, value, 100)
    assert distribution.support(moved).all()
    error = 4 * math.sqrt(3 / 4 / 500)
    assert float(moved.mean()) == pytest.approx(1.5, abs=error)


def test_batched_distribution(quartic):
    prior = ebm.EnergyBased(quartic, dist.Normal(jnp.zeros((3, 2)), 1.0).to_event(1))
    options = {"num_chains": 50, "num_samples": 200, "num_warmup": 100, "thinning": 2}
    chains = run_chains(ebm.MALA(0.2), prior, **options)
    assert chains.samples.shape == (50, 200, 3, 2)
    names = {"lp", "acceptance_rate", "diverging", "step_size", "ebm_energy"}
    assert set(chains.statistics) == names
    assert jnp.allclose(
        chains.statistics["ebm_energy"], scaled_energy(prior, chains.samples), atol=1e-3
    )
    assert jnp.allclose(chains.statistics["lp"], prior.log_prob(chains.samples), atol=1e-4)
    grid = np.linspace(-6, 6, 2001)
    weights = np.exp(-(grid**2) / 2 - grid**4 / 4)
    variance = (weights * grid**2).sum() / weights.sum()
    assert float(chains.samples.var()) == pytest.approx(variance, rel=0.03)


def test_constrained_distribution():
    gamma, sampler = dist.Gamma(3.0, 2.0), ebm.MALA(0.2, target_accept_prob=0.9)
    chains = run_chains(sampler, gamma, num_chains=200, num_warmup=100, num_samples=100)
    assert float(chains.samples.mean()) == pytest.approx(1.5, rel=0.05)
    assert jnp.allclose(chains.statistics["lp"], gamma.log_prob(chains.samples), atol=1e-4)


@pytest.mark.parametrize("sampler", [ebm.KineticLangevin(0.3), ebm.HMC(0.3)])
def test_lp_and_ebm_energy(sampler):
    base = dist.Gamma(jnp.array([2.0, 3.0]), 1.0).to_event(1)
    distribution = ebm.EnergyBased(lambda x: (x**2).sum(-1), base)
    chains = run_chains(sampler, distribution, num_chains=2, num_samples=5, num_warmup=100)
    samples, statistics = chains.samples, chains.statistics
    assert jnp.allclose(statistics["ebm_energy"], (samples**2).sum(-1), atol=1e-3)
    assert jnp.allclose(statistics["lp"], distribution.log_prob(samples), atol=1e-3)


# --- start ---


def test_number_of_chains_from_init():
    init = jnp.full((3,), 2.0)
    first = run_chains(ebm.Langevin(1e-8), NORMAL, init=init, num_samples=1)
    assert jnp.allclose(first.samples[:, 0], init, atol=1e-2)
    again = run_chains(ebm.Langevin(1e-8), NORMAL, init=first.state, num_samples=1)
    assert jnp.allclose(again.samples, first.samples, atol=1e-2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((ebm.MALA, NORMAL), TypeError, "an instance, got the class MALA"),
        ((NORMAL, ebm.MALA()), TypeError, "init and step, .* got Normal"),
        ((ebm.MALA(), dist.Poisson(1.0)), ValueError, "a continuous support .* of .*Poisson"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        run_chains(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": jnp.array([0.0, math.nan] * 2)}, "every chain to start .* in 2 of 4 chains"),
        ({"init": jnp.zeros((3, 1))}, r"`init` of shape \(3,\) .*, got \(3, 1\)"),
        ({"init": jnp.zeros(3), "num_chains": 4}, r"`init` of shape \(4, .* got \(3,\)"),
        ({"num_samples": 0}, "`num_samples` to be an integer of at least 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        run_chains(ebm.MALA(), NORMAL, **options)


# --- warm-up ---


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("sampler", [ebm.MALA(), ebm.HMC(num_steps=7)])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_default_step_size_at_any_scale(sampler, scale):
    target = dist.Normal(5 * scale, scale)
    chains = run_chains(sampler, target, num_chains=2000, num_samples=1, num_warmup=300)
    assert normal_p_value(chains.samples / scale - 5) > 1e-3


def test_default_step_size_before_warmup():
    draws = 1e-3 * random.normal(KEY, (2000, 8))

    def potential(x):
        return (x**2).sum(-1) / 2e-6

    step_size = float(ebm.MALA().init(potential, draws).step_size)
    assert step_size == pytest.approx(1e-6 / 2, rel=4 * math.sqrt(2 / 16_000))
    leapfrog = float(ebm.HMC().init(potential, draws).step_size)
    assert leapfrog == pytest.approx(math.sqrt(2 * step_size))


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    ("sampler", "target"), [(ebm.MALA(1e-3, adapt_mass_matrix=True), 0.574), (ebm.HMC(9.0, 3), 0.8)]
)
def test_warmup_tunes_step_size_and_scales(sampler, target):
    adapts = sampler.adapt_mass_matrix
    # For HMC unequal scales too, or trajectories would come back to their start all at once.
    scale = jnp.array([0.01, 1.0, 100.0] if adapts else [0.5, 0.7, 1.0])
    chains = run_chains(
        sampler,
        dist.Normal(jnp.zeros(3), scale).to_event(1),
        num_samples=200,
        num_warmup=400,
        init=scale * random.normal(random.key(1), (100, 3)),
    )
    rate = float(chains.statistics["acceptance_rate"].mean())
    assert rate == pytest.approx(target, abs=0.06)
    assert chains.statistics["step_size"].shape == (100, 200)
    assert jnp.allclose(chains.samples.std((0, 1)), scale, rtol=0.05, atol=0)
    assert jnp.allclose(chains.state.scale, scale if adapts else 1.0, rtol=0.1, atol=0)


def test_step_sizes_of_a_batch():
    target = dist.Normal(0.0, jnp.array([0.01, 1.0]))
    chains = run_chains(ebm.MALA(0.1), target, num_chains=200, num_samples=10, num_warmup=300)
    small, large = chains.state.step_size
    assert float(large / small) == pytest.approx(1e4, rel=0.5)
    assert chains.statistics["step_size"].shape == (200, 10, 2)


# --- warnings, progress, compilation ---


def test_trouble_is_warned_of(prior):
    with (
        pytest.warns(UserWarning, match="120 of 120 kept transitions of MALA.* diverged"),
        pytest.warns(UserWarning, match="4 of 4 chains of MALA.* are stuck"),
    ):
        chains = run_chains(ebm.MALA(1e6), prior, num_samples=30)
    assert jnp.isfinite(chains.samples).all()
    with pytest.warns(UserWarning, match=r"\d+ of 120 kept transitions of Langevin.* diverged"):
        run_chains(ebm.Langevin(100.0), prior, num_samples=30)


def test_progress_bar_changes_no_draw(prior, capsys):
    options = {"num_samples": 45, "num_warmup": 7}
    shown = ebm.run_chains(KEY, ebm.MALA(0.1), prior, **options)
    assert "MALA" in capsys.readouterr().err
    hidden = run_chains(ebm.MALA(0.1), prior, **options)
    assert capsys.readouterr().err == ""
    assert jnp.allclose(shown.samples, hidden.samples, atol=1e-5)


def test_new_parameters_compile_nothing_anew(quartic):
    def run(weight):
        energy = type(quartic)(jnp.array(weight))
        prior = ebm.EnergyBased(energy, dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        return run_chains(ebm.MALA(0.1), prior, num_samples=40).samples

    first = run(0.1)
    compiled = _keep._cache_size()
    assert jnp.abs(run(4.0)).mean() < jnp.abs(first).mean()
    assert _keep._cache_size() == compiled
