import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.distributions import constraints
from scipy import stats

import pyro_ebm.numpyro as ebm
from pyro_ebm.numpyro.samplers.run import _keep
from pyro_ebm.numpyro.samplers.target import unconstrained_potential

NUM_CHAINS = 50_000


def walk(sampler, potential, position, num_steps, key=1):
    @jax.jit
    def run(position):
        def step(state, key):
            return sampler.step(key, potential, state)

        keys = random.split(random.key(key), num_steps)
        return jax.lax.scan(step, sampler.init(potential, position), keys)

    return run(position)


def p_value(draws, scale):
    return stats.kstest(np.asarray(draws), stats.norm(scale=scale).cdf).pvalue


@pytest.mark.parametrize("sampler", [ebm.Langevin(0.1), ebm.MALA(0.1)])
def test_state_holds_what_the_next_step_needs(sampler):
    gradients = []

    def potential(x):
        gradients.append(None)
        return (x**4).sum(-1)

    state = sampler.init(potential, jnp.ones((3, 2)))
    assert len(gradients) == 1
    state, info = sampler.step(random.key(0), potential, state)
    assert len(gradients) == 2
    if state.potential is not None:
        assert jnp.allclose(state.potential, (state.position**4).sum(-1))
    assert jnp.allclose(state.gradient, 4 * state.position**3)
    assert info.diverging.shape == info.acceptance_rate.shape == (3,)
    assert hash(sampler) == hash(type(sampler)(0.1))


def test_divergence_is_seen_and_mala_stays():
    def potential(x):
        return jnp.where(x > 0, jnp.nan, 0.5 * x**2)

    start = -jnp.ones(200)
    state, info = walk(ebm.MALA(1.0), potential, start, 10)
    assert info.diverging.any()
    assert jnp.isfinite(state.position).all()
    state, info = walk(ebm.Langevin(1.0), lambda x: jnp.exp(x**2), start, 10)
    assert info.diverging.any()
    assert (info.diverging[-1] == ~jnp.isfinite(state.position)).all()


def test_unconstrained_potential_counts_the_volume():
    gamma = dist.Gamma(3.0, 2.0)
    position = jnp.linspace(-1.0, 1.0, 5)
    expected = -gamma.log_prob(jnp.exp(position)) - position
    assert jnp.allclose(unconstrained_potential(gamma)(position), expected, rtol=1e-5)
    tilted = ebm.EnergyBased(lambda x: jnp.zeros(len(x)), gamma)
    assert jnp.allclose(unconstrained_potential(tilted)(position), expected, rtol=1e-5)


def test_run_chains_on_an_energy_based_distribution(quartic):
    prior = ebm.EnergyBased(quartic, dist.Normal(jnp.zeros((3, 2)), 1.0).to_event(1))
    chains = ebm.run_chains(
        random.key(0),
        ebm.MALA(0.2),
        prior,
        num_chains=50,
        num_samples=200,
        num_warmup=100,
        thinning=2,
        progress_bar=False,
    )
    assert chains.samples.shape == (50, 200, 3, 2)
    assert set(chains.statistics) == {
        "lp",
        "acceptance_rate",
        "diverging",
        "step_size",
        "ebm_energy",
    }
    energies = prior.evaluate(chains.samples)
    assert jnp.allclose(chains.statistics["ebm_energy"], energies, atol=1e-3)
    assert chains.statistics["lp"].shape == (50, 200, 3)
    assert jnp.allclose(chains.statistics["lp"], prior.log_prob(chains.samples), atol=1e-4)
    grid = np.linspace(-6, 6, 2001)
    weights = np.exp(-(grid**2) / 2 - grid**4 / 4)
    variance = (weights * grid**2).sum() / weights.sum()
    assert float(chains.samples.var()) == pytest.approx(variance, rel=0.03)


def test_run_chains_on_a_constrained_distribution_of_the_host():
    gamma = dist.Gamma(3.0, 2.0)
    chains = ebm.run_chains(
        random.key(0),
        ebm.MALA(0.2, target_acceptance=0.9),
        gamma,
        num_chains=200,
        num_warmup=100,
        num_samples=100,
        progress_bar=False,
    )
    assert float(chains.samples.mean()) == pytest.approx(1.5, rel=0.05)
    assert jnp.allclose(chains.statistics["lp"], gamma.log_prob(chains.samples), atol=1e-4)


def test_run_chains_starts_where_it_is_told_and_goes_on(prior, capsys):
    init = jnp.full((4, 2), 2.0)
    options = {"num_chains": 4, "num_samples": 1}
    first = ebm.run_chains(random.key(0), ebm.Langevin(1e-8), prior, init=init, **options)
    assert "Langevin" in capsys.readouterr().err
    assert jnp.allclose(first.samples[:, 0], init, atol=1e-2)
    again = ebm.run_chains(
        random.key(0), ebm.Langevin(1e-8), prior, init=first.state, progress_bar=False, **options
    )
    assert jnp.allclose(again.samples[:, 0], first.samples[:, 0], atol=1e-2)
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match=r"`init` of shape \(4, 2\).*got \(3, 2\)"):
        ebm.run_chains(random.key(0), ebm.MALA(0.1), prior, init=init[:3], **options)


def test_progress_bar_changes_no_draw(prior):
    def draws(progress_bar):
        return ebm.run_chains(
            random.key(0),
            ebm.MALA(0.1),
            prior,
            num_samples=45,
            num_warmup=7,
            progress_bar=progress_bar,
        ).samples

    assert jnp.allclose(draws(True), draws(False), atol=1e-5)


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    ("sampler", "target"),
    [(ebm.MALA(1e-3, adapt_scale=True), 0.574), (ebm.HMC(9.0, num_leapfrog=3), 0.8)],
)
def test_warmup_tunes_step_size_and_scales(sampler, target):
    # For HMC unequal scales too, or trajectories would come back to their start all at once.
    scale = jnp.array([0.01, 1.0, 100.0] if sampler.adapt_scale else [0.5, 0.7, 1.0])
    chains = ebm.run_chains(
        random.key(0),
        sampler,
        dist.Normal(jnp.zeros(3), scale).to_event(1),
        num_chains=100,
        num_samples=200,
        num_warmup=400,
        init=scale * random.normal(random.key(1), (100, 3)),
        progress_bar=False,
    )
    rate = float(chains.statistics["acceptance_rate"].mean())
    assert rate == pytest.approx(target, abs=0.06)
    assert chains.statistics["step_size"].shape == (100, 200)
    assert jnp.allclose(chains.samples.std((0, 1)), scale, rtol=0.05, atol=0)
    if sampler.adapt_scale:
        assert jnp.allclose(chains.state.scale, scale, rtol=0.1, atol=0)
    else:
        assert chains.state.scale == 1.0


def test_each_element_of_a_batch_gets_a_step_size_of_its_own():
    chains = ebm.run_chains(
        random.key(0),
        ebm.MALA(0.1),
        dist.Normal(0.0, jnp.array([0.01, 1.0])),
        num_chains=200,
        num_samples=10,
        num_warmup=300,
        progress_bar=False,
    )
    small, large = chains.state.step_size
    assert float(large / small) == pytest.approx(1e4, rel=0.5)
    assert chains.statistics["step_size"].shape == (200, 10, 2)


@pytest.mark.parametrize("sampler", [ebm.KineticLangevin(0.3), ebm.HMC(0.3)])
def test_lp_and_ebm_energy(sampler):
    base = dist.Gamma(jnp.array([2.0, 3.0]), 1.0).to_event(1)
    distribution = ebm.EnergyBased(lambda x: (x**2).sum(-1), base)
    chains = ebm.run_chains(
        random.key(0),
        sampler,
        distribution,
        num_chains=2,
        num_samples=5,
        num_warmup=100,
        progress_bar=False,
    )
    samples, statistics = chains.samples, chains.statistics
    assert jnp.allclose(statistics["ebm_energy"], (samples**2).sum(-1), atol=1e-3)
    assert jnp.allclose(statistics["lp"], distribution.log_prob(samples), atol=1e-3)


def test_stuck_chains_are_told_of(prior):
    def run(sampler):
        return ebm.run_chains(
            random.key(0), sampler, prior, num_chains=4, num_samples=30, progress_bar=False
        )

    with (
        pytest.warns(UserWarning, match="120 of 120 transitions .* of MALA.* diverged"),
        pytest.warns(UserWarning, match="4 of 4 chains of MALA.* are stuck"),
    ):
        assert jnp.isfinite(run(ebm.MALA(1e6)).samples).all()
    with pytest.warns(UserWarning, match=r"\d+ of 120 transitions .* of Langevin.* diverged"):
        run(ebm.Langevin(100.0))


def test_new_parameters_compile_nothing_anew(quartic):
    def run(weight):
        energy = type(quartic)(jnp.array(weight))
        prior = ebm.EnergyBased(energy, dist.Normal(jnp.zeros(2), 1.0).to_event(1))
        return ebm.run_chains(
            random.key(0), ebm.MALA(0.1), prior, num_samples=40, progress_bar=False
        ).samples

    first = run(0.1)
    compiled = _keep._cache_size()
    assert jnp.abs(run(4.0)).mean() < jnp.abs(first).mean()
    assert _keep._cache_size() == compiled


def test_default_start_without_a_base_is_standard_normal_in_unconstrained_space():
    flat = ebm.EnergyBased(lambda x: 0 * x, event_shape=(), support=constraints.positive)
    chains = ebm.run_chains(
        random.key(0), ebm.Langevin(1e-9), flat, num_chains=4000, num_samples=1, progress_bar=False
    )
    assert p_value(jnp.log(chains.samples[:, 0]), 1.0) > 1e-3


@pytest.mark.parametrize("sampler", [ebm.Langevin, ebm.MALA])
def test_wrong_arguments(sampler, prior):
    with pytest.raises(ValueError, match="`step_size` to be a positive number, got 0"):
        sampler(0.0)
    with pytest.raises(ValueError, match="`num_steps` to be an integer of at least 1, got 0"):
        sampler(0.1, num_steps=0)
    with pytest.raises(ValueError, match="`num_chains`"):
        ebm.run_chains(random.key(0), sampler(0.1), prior, num_chains=0)
    with pytest.raises(ValueError, match="`num_samples` to be an integer of at least 1, got 0"):
        ebm.run_chains(random.key(0), sampler(0.1), prior, num_samples=0)
    with pytest.raises(ValueError, match="a continuous support .* of .*Poisson"):
        ebm.run_chains(random.key(0), sampler(0.1), dist.Poisson(1.0))
    with pytest.raises(ValueError, match="every chain to start where .* in 4 of 4 chains"):
        ebm.run_chains(random.key(0), sampler(0.1), prior, init=jnp.full((4, 2), jnp.nan))
    with pytest.raises(ValueError, match="`num_warmup`"):
        ebm.run_chains(random.key(0), sampler(0.1), prior, num_warmup=-1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ebm.HMC(0.1, num_leapfrog=0), "`num_leapfrog` to be an integer of at least 1"),
        (lambda: ebm.MALA(0.1, target_acceptance=1.0), "`target_acceptance` to be .* got 1.0"),
        (lambda: ebm.Langevin(0.1, noise_scale=-1.0), "`noise_scale` to be .* got -1.0"),
        (lambda: ebm.Langevin(0.1, temperature=0.0), "`temperature` to be .* got 0.0"),
        (lambda: ebm.KineticLangevin(0.1, friction=0.0), "`friction` to be .* got 0.0"),
    ],
)
def test_wrong_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()
