import math
import pickle

import numpy as np
import pytest
from array_api_compat import array_namespace

from helpers.targets import TARGETS, normal_p_value

LADDER = (4.0, 2.0, 1.0)
WEIGHT, MODE, SPREAD = 0.615, 1.5, 0.1


# --- invariance ---


def exact_state(host, sampler, potential, draws):
    """State with draws of each level, the hottest first."""
    state = sampler.init(potential, host.array(draws[-1]))
    levels = zip(state.hotter, draws, strict=False)
    hotter = tuple(level._replace(position=host.array(draw)) for level, draw in levels)
    return state._replace(hotter=hotter)


# A scaled standard normal makes draws at any temperature of these targets.
@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(("name", "kernel"), [("banana", "MALA"), ("gaussian", "HMC")])
def test_exact_draws_stay_exact(host, name, kernel):
    target = TARGETS[name]
    h = target.step_size
    inner = host.ebm.MALA(h**2 / 2) if kernel == "MALA" else host.ebm.HMC(h, 3)
    sampler = host.ebm.ReplicaExchange(inner, temperatures=LADDER)
    prior = host.ebm.EnergyBased(target.potential, event_shape=(target.dims,))
    noise = np.random.default_rng(0).normal(size=(3, 100_000 // target.dims, target.dims))

    def p_values(hotter):
        """P-values of each level, from draws at temperatures that are higher by a factor."""
        scales = [math.sqrt(hotter * temperature) for temperature in LADDER]
        draws = [target.destandardize(s * u) for s, u in zip(scales, noise, strict=True)]
        state = exact_state(host, sampler, target.potential, draws)
        options = {"num_samples": 1, "thinning": 20, "check": False}
        chains = host.run_chains(sampler, prior, init=state, **options)
        found = [np.asarray(level.position) for level in chains.state.levels()]
        return [
            normal_p_value(target.standardize(x) / s) for x, s in zip(found, scales, strict=True)
        ]

    assert min(p_values(1.0)) > 1e-3
    assert max(p_values(1.1)) < 1e-3


# --- weights of modes ---


def two_modes(host):
    def energy(x):
        xp = array_namespace(x)
        right = math.log(WEIGHT) - 0.5 * ((x - MODE) / SPREAD) ** 2
        left = math.log(1 - WEIGHT) - 0.5 * ((x + MODE) / SPREAD) ** 2
        return -xp.logaddexp(left, right) - x**2 / 8

    return host.ebm.EnergyBased(energy, host.dist.Normal(0.0, 2.0))


@pytest.mark.once
def test_chains_cross_between_modes(host):
    options = {"num_samples": 150, "num_warmup": 150, "num_chains": 400, "check": False}
    sampler = host.ebm.ReplicaExchange(host.ebm.MALA(), temperatures=(64, 16, 4, 1))
    chains = host.run_chains(sampler, two_modes(host), **options)
    samples = np.asarray(chains.samples)
    weights = (samples > 0).mean(1)
    assert weights.mean() == pytest.approx(WEIGHT, abs=4 * weights.std() / 20)
    assert weights.std() / 20 < 0.015  # Of chains that never cross, half would be on either side.
    assert np.abs(samples).std() == pytest.approx(SPREAD, rel=0.03)
    assert chains.statistics["acceptance_rate"].mean().item() == pytest.approx(0.574, abs=0.05)
    rates = np.asarray(chains.statistics["swap_rate"])
    assert rates.shape == (400, 150, 3)
    # Of 1-dimensional Gaussians a factor of 4 apart: 4 / pi * atan(1 / 2).
    np.testing.assert_allclose(rates.mean((0, 1)), 0.59, atol=0.04)
    few = chains._replace(
        samples=samples[:4], statistics={k: v[:4] for k, v in chains.statistics.items()}
    )
    assert few.to_arviz().sample_stats["swap_rate"].shape == (4, 150, 3)


# --- warm-up ---


@pytest.fixture(scope="module")
def tuned():
    """Chains on c^-4 x^4 for two contexts c, by host."""
    return {}


def quartics(host, tuned):
    kernel = host.ebm.MALA(target_accept_prob=0.8, adapt_mass_matrix=True)
    sampler = host.ebm.ReplicaExchange(kernel, temperatures=(16, 4, 1))
    prior = host.ebm.EnergyBased(
        lambda x, c: (x / c) ** 4, event_shape=(), context=host.array([1.0, 0.1])
    )
    if host not in tuned:
        options = {"num_samples": 20, "num_warmup": 300, "num_chains": 500, "check": False}
        tuned[host] = host.run_chains(sampler, prior, **options)
    return sampler, prior, tuned[host]


def test_warmup_tunes_every_level_of_every_context(host, tuned):
    _, _, chains = quartics(host, tuned)
    for level, temperature in zip(chains.state.levels(), (16, 4, 1), strict=True):
        # E x^2 = T^(1/2) Gamma(3/4) / Gamma(1/4), and E U'^2 = E U'' = 12 / T times that.
        spread = math.sqrt(math.gamma(0.75) / math.gamma(0.25)) * temperature**0.25
        scale = (temperature / 12) ** 0.25
        np.testing.assert_allclose(level.scale, [scale, 0.1 * scale], rtol=0.1)
        positions = np.asarray(level.position).std(0)
        np.testing.assert_allclose(positions, [spread, 0.1 * spread], rtol=0.15)
        # In these units all levels are the same law.
        np.testing.assert_allclose(level.step_size, 0.93, rtol=0.2)
    sizes = np.stack([np.asarray(level.step_size) for level in chains.state.levels()])
    assert len(np.unique(sizes)) == 6
    assert chains.statistics["swap_rate"].shape == (500, 20, 2, 2)


def test_a_run_continues_from_its_state(host, tuned):
    sampler, prior, chains = quartics(host, tuned)
    saved = pickle.loads(pickle.dumps(chains.state))
    run, again = (
        host.run_chains(sampler, prior, init=init, num_samples=3) for init in (chains.state, saved)
    )
    np.testing.assert_array_equal(run.samples, again.samples)
    for level, before in zip(run.state.levels(), saved.levels(), strict=True):
        np.testing.assert_array_equal(level.step_size, before.step_size)
        np.testing.assert_array_equal(level.scale, before.scale)
        assert (np.asarray(level.position) == np.asarray(before.position)).mean() < 0.5
    with pytest.raises(ValueError, match="state of the same sampler, with 0 hotter levels, got 2"):
        host.run_chains(host.ebm.MALA(), prior, init=saved)


# --- short runs, one gradient ---


def test_one_evaluation_a_step_for_all_levels(host):
    sampler = host.ebm.ReplicaExchange(host.ebm.MALA(0.1), temperatures=LADDER)
    shapes = []

    def potential(x):
        shapes.append(tuple(x.shape))
        return (x**4).sum(-1)

    state = sampler.init(potential, host.array(np.ones((5, 2))))
    state, info = host.step(sampler, potential, state)
    assert shapes == [(5, 2), (3, 5, 2)]
    for level in state.levels():
        np.testing.assert_allclose(level.potential, (level.position**4).sum(-1), rtol=1e-5)
        np.testing.assert_allclose(level.gradient, 4 * level.position**3, rtol=1e-5)
    assert info.acceptance_rate.shape == (5,)
    assert info.swap_rate.shape == (5, 2)


def test_short_runs_of_contexts(host):
    sampler = host.ebm.ReplicaExchange(host.ebm.MALA(), temperatures=LADDER)
    base = host.dist.Normal(host.array(np.zeros(2)), 1.0)
    prior = host.ebm.EnergyBased(
        lambda x, c: 1.5 * (x - c) ** 2,
        base,
        context=host.array([-1.0, 1.0]),
        sampler=sampler,
        num_sampler_steps=60,
    )
    draws = np.asarray(host.sample(prior, (1000,)))
    # Precision 4, means 3 c / 4.
    np.testing.assert_allclose(draws.mean(0), [-0.75, 0.75], atol=4 * 0.5 / math.sqrt(1000))
    np.testing.assert_allclose(draws.std(0), 0.5, rtol=4 / math.sqrt(2000))
