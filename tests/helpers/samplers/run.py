import math
import warnings

import arviz
import numpy as np
import pytest
from array_api_compat import array_namespace

from helpers.oracles import VARIANCE_QUARTIC
from helpers.targets import normal_p_value

SAMPLERS = {
    "langevin": lambda ebm: ebm.Langevin(0.1),
    "kinetic": lambda ebm: ebm.KineticLangevin(0.3),
    "mala": lambda ebm: ebm.MALA(0.1),
    "hmc": lambda ebm: ebm.HMC(0.3),
}
rng = np.random.default_rng(0)


@pytest.mark.parametrize("name", ["langevin", "mala"])
def test_one_gradient_a_step(host, name):
    sampler, calls = SAMPLERS[name](host.ebm), []

    def potential(x):
        calls.append(None)
        return (x**4).sum(-1)

    state = sampler.init(potential, host.array(np.ones((3, 2))))
    assert len(calls) == 1
    state, info = host.step(sampler, potential, state)
    assert len(calls) == 2
    if state.potential is not None:
        np.testing.assert_allclose(state.potential, (state.position**4).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(state.gradient, 4 * state.position**3, rtol=1e-5)
    assert info.diverging.shape == info.acceptance_rate.shape == (3,)


@pytest.mark.parametrize("name", ["langevin", "kinetic"])
def test_a_step_size_for_each_coordinate(host, name):
    sampler = SAMPLERS[name](host.ebm)
    state = sampler.init(lambda x: (x**4).sum(-1), host.array(np.ones((3, 2))))
    state = state._replace(step_size=host.array([0.1, 0.0]))
    for _ in range(2):
        state, _ = host.step(sampler, lambda x: (x**4).sum(-1), state)
    moved = np.asarray(state.position) != 1.0
    assert moved.tolist() == [[True, False]] * 3


def shifted_log_normal(host):
    """exp(-(x - 5)) on a base beyond 5, whose support torch and NumPyro take for wider."""
    transforms = host.dist.transforms
    parts = [transforms.ExpTransform(), transforms.AffineTransform(5.0, 1.0)]
    base = host.dist.TransformedDistribution(host.dist.Normal(0.0, 1.0), parts)
    return host.ebm.EnergyBased(lambda x: x - 5, base)


def test_a_base_without_density_in_a_part_of_its_support(host):
    draws = host.sample(shifted_log_normal(host), (500,))
    assert (draws > 5).all()
    # The mean of y exp(-y) / that of exp(-y), for log-normal y.
    y = np.exp(np.random.default_rng(0).normal(size=200_000))
    expected = 5 + np.average(y, weights=np.exp(-y))
    assert float(draws.mean()) == pytest.approx(expected, abs=0.15)


def test_no_check_loses_finished_chains(host, monkeypatch):
    prior = host.ebm.EnergyBased(lambda x: 0.5 * x**2, host.dist.Normal(0.0, 1.0))

    def fails(*args):
        raise RuntimeError("no reference today")

    monkeypatch.setattr(type(prior), "_reference", fails)
    with pytest.warns(UserWarning, match="look for missing modes: no reference today"):
        chains = host.run_chains(host.ebm.MALA(0.1), prior, num_samples=250, num_warmup=50)
    assert chains.samples.shape == (4, 250)


def test_draws_that_are_no_numbers_do_not_lose_chains(host):
    prior = host.ebm.EnergyBased(lambda x: 0.5 * x**2, host.dist.Normal(0.0, 1.0))
    kernel = host.ebm.Langevin(100.0)
    with pytest.warns(UserWarning, match="diverged"):
        with pytest.warns(UserWarning, match="where no chain"):
            chains = host.run_chains(kernel, prior, num_samples=250)
    assert not np.isfinite(np.asarray(chains.samples)).all()


def test_moved_values_stay_in_the_support(host):
    distribution, value = host.dist.Gamma(3.0, 2.0), host.array(rng.uniform(size=500))
    moved = host.move_values(host.ebm.MALA(0.2), distribution, value, 100).samples
    assert (moved > 0).all()
    assert moved.mean() == pytest.approx(1.5, abs=4 * math.sqrt(3 / 4 / 500))


def test_integers_and_arrays_of_numpy_are_starts(host):
    prior = host.ebm.EnergyBased(lambda x: (x**4).sum(-1), host.normal((2,)))
    start = np.array([[0, 1], [1, 0], [1, 1]])
    chains = [
        host.run_chains(host.ebm.MALA(0.1), prior, init=init, num_samples=5).samples
        for init in (host.array(start), start, start.astype(float), start.tolist())
    ]
    for other in chains[1:]:
        assert other.tolist() == chains[0].tolist()


def test_batched_distribution(host):
    base = host.dist.Normal(host.array(np.zeros((3, 2))), 1.0).to_event(1)
    prior = host.ebm.EnergyBased(lambda x: (x**4).sum(-1) / 4, base)
    # From the bulk: in the tails MALA is stuck before its step size is found.
    init = host.array(np.linspace(-1.0, 1.0, 300).reshape((50, 3, 2)))
    options = {"init": init, "num_samples": 200, "num_warmup": 100, "thinning": 2}
    chains = host.run_chains(host.ebm.MALA(0.2, target_accept_prob=0.8), prior, **options)
    assert chains.samples.shape == (50, 200, 3, 2)
    names = {"lp", "acceptance_rate", "diverging", "step_size", "ebm_energy"}
    assert set(chains.statistics) == names
    assert {x.shape for x in chains.statistics.values()} == {(50, 200, 3)}
    assert np.asarray(chains.samples).var() == pytest.approx(VARIANCE_QUARTIC, rel=0.03)


def test_constrained_distribution(host):
    gamma = host.dist.Gamma(host.array([2.0, 20.0]), 2.0)
    sampler = host.ebm.MALA(0.05, target_accept_prob=0.9)
    options = {"num_chains": 500, "num_samples": 40, "num_warmup": 100, "thinning": 5}
    chains = host.run_chains(sampler, gamma, **options)
    np.testing.assert_allclose(chains.samples.mean((0, 1)), [1.0, 10.0], rtol=0.05)
    expected = gamma.log_prob(chains.samples)
    np.testing.assert_allclose(chains.statistics["lp"], expected, atol=1e-4)
    assert not chains.statistics["diverging"].any()


@pytest.mark.parametrize("name", SAMPLERS)
def test_lp_and_ebm_energy(host, name):
    base = host.dist.Gamma(host.array([2.0, 3.0]), 1.0).to_event(1)
    distribution = host.ebm.EnergyBased(lambda x: (x**2).sum(-1), base)
    options = {"num_chains": 20, "num_samples": 5, "num_warmup": 100}
    chains = host.run_chains(SAMPLERS[name](host.ebm), distribution, **options)
    samples, statistics = chains.samples, chains.statistics
    np.testing.assert_allclose(statistics["ebm_energy"], (samples**2).sum(-1), atol=1e-3)
    np.testing.assert_allclose(statistics["lp"], distribution.log_prob(samples), atol=1e-3)


def test_energies_without_a_slope(host):
    """A step, whose gradient is no part of any graph, and an energy of another variable."""
    normal = host.dist.Normal(0.0, 1.0)
    step = host.ebm.EnergyBased(lambda x: host.xp.where(x > 0, 1.0, 0.0), normal)
    above = 1 / (1 + math.e)
    draws = np.asarray(host.sample(step, (4000,)))
    assert (draws > 0).mean() == pytest.approx(above, abs=0.05)
    chains = host.run_chains(host.ebm.MALA(), step, num_chains=200, num_samples=20, num_warmup=100)
    assert (np.asarray(chains.samples) > 0).mean() == pytest.approx(above, abs=0.05)
    joint = host.ebm.EnergyBased(lambda u, v: 0 * u, host.ebm.Joint(u=normal, v=normal))
    assert np.asarray(host.sample(joint.conditional(u=host.array(1.0)), (10,))).shape == (10,)


# --- start ---


def test_number_of_chains_from_init(host):
    init, kernel = host.array(np.full(3, 2.0)), host.ebm.Langevin(1e-8)
    normal = host.dist.Normal(0.0, 1.0)
    first = host.run_chains(kernel, normal, init=init, num_samples=1)
    np.testing.assert_allclose(first.samples[:, 0], init, atol=1e-2)
    again = host.run_chains(kernel, normal, init=first.state, num_samples=1)
    np.testing.assert_allclose(again.samples, first.samples, atol=1e-2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda ebm, dist: (ebm.MALA, dist.Normal(0.0, 1.0)), TypeError, "got the class MALA"),
        (lambda ebm, dist: (dist.Normal(0.0, 1.0), ebm.MALA()), TypeError, "init and step, .* got"),
        (lambda ebm, dist: (ebm.MALA(), dist.Poisson(1.0)), ValueError, "continuous .*Poisson"),
    ],
)
def test_bad_arguments(host, arguments, error, message):
    with pytest.raises(error, match=message):
        host.run_chains(*arguments(host.ebm, host.dist))


@pytest.mark.parametrize(
    ("init", "options", "message"),
    [
        ([0.0, math.nan] * 2, {}, "every chain to start .* in 2 of 4 chains"),
        (np.zeros((3, 1)), {}, r"`init` of shape \(3,\) .*, got \(3, 1\)"),
        (np.zeros(3), {"num_chains": 4}, r"`init` of shape \(4, .* got \(3,\)"),
        (np.zeros(3), {"num_samples": 0}, "`num_samples` to be an integer of at least 1, got 0"),
    ],
)
def test_bad_options(host, init, options, message):
    with pytest.raises(ValueError, match=message):
        host.run_chains(
            host.ebm.MALA(), host.dist.Normal(0.0, 1.0), init=host.array(init), **options
        )


# --- warm-up ---


@pytest.mark.parametrize("make", [lambda ebm: ebm.MALA(), lambda ebm: ebm.HMC(num_steps=7)])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_default_step_size_at_any_scale(host, make, scale):
    options = {"num_chains": 2000, "num_samples": 1, "num_warmup": 300}
    target = host.dist.Normal(5 * scale, scale)
    chains = host.run_chains(make(host.ebm), target, **options)
    assert normal_p_value(chains.samples / scale - 5) > 1e-3


@pytest.mark.parametrize("make", [lambda ebm: ebm.MALA(), lambda ebm: ebm.HMC()])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_short_warmup_at_any_scale(host, make, scale):
    """The window of scales ends a few steps before the draws begin."""
    init = host.array(scale * rng.normal(size=(4, 1)))
    target = host.dist.Normal(host.array([0.0]), scale).to_event(1)
    for num_warmup in (20, 50):
        options = {"num_samples": 100, "num_warmup": num_warmup, "init": init}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            chains = host.run_chains(make(host.ebm), target, **options)
        # A trajectory may be unstable for the longest of its steps: warned of, unless it is rare.
        share = np.asarray(chains.statistics["diverging"]).mean()
        advice = ["diverged: let a longer warm-up" in str(it.message) for it in caught]
        assert all(advice)
        assert len(advice) == (share > 0.01)
        assert chains.statistics["acceptance_rate"].mean().item() > 0.2
        assert 0.6 < np.asarray(chains.samples).std() / scale < 1.5


def test_default_step_size_before_warmup(host):
    draws = host.array(1e-3 * rng.normal(size=(2000, 8)))

    def potential(x):
        return (x**2).sum(-1) / 2e-6

    step_size = host.ebm.MALA().init(potential, draws).step_size.item()
    assert step_size == pytest.approx(1e-6 / 2, rel=4 * math.sqrt(2 / 16_000))
    leapfrog = host.ebm.HMC().init(potential, draws).step_size.item()
    assert leapfrog == pytest.approx(math.sqrt(2 * step_size))


@pytest.mark.parametrize(
    ("make", "scale", "rate"),
    [
        (lambda ebm: ebm.MALA(1e-3), [0.01, 1.0, 100.0], 0.574),
        (lambda ebm: ebm.HMC(9.0, 3, adapt_mass_matrix=False), [0.5, 0.7, 1.0], 0.8),
    ],
)
def test_warmup_tunes_step_size_and_scales(host, make, scale, rate):
    sampler, init = make(host.ebm), host.array(scale * rng.normal(size=(1000, 3)))
    target = host.dist.Normal(host.array([0.0] * 3), host.array(scale)).to_event(1)
    chains = host.run_chains(sampler, target, num_samples=20, num_warmup=400, init=init)
    assert chains.statistics["acceptance_rate"].mean().item() == pytest.approx(rate, abs=0.06)
    assert chains.statistics["step_size"].shape == (1000, 20)
    # Four errors of 1,000 exact draws.
    np.testing.assert_allclose(np.asarray(chains.samples).std((0, 1)), scale, rtol=0.09)
    expected = scale if sampler.adapt_mass_matrix else 1.0
    np.testing.assert_allclose(chains.state.scale, expected, rtol=0.1)


@pytest.mark.once
def test_scales_are_those_of_one_mode(host):
    """Ten apart in the first of three coordinates, with chains in both modes."""
    scale, ends = np.array([0.3, 0.5, 1.0]), 5.0 * np.sign(np.arange(200)[:, None] % 2 - 0.5)
    start = host.array(ends * [1, 0, 0] + scale * rng.normal(size=(200, 3)))

    def energy(x):
        far = array_namespace(x).stack([abs(x[:, 0]) - 5.0, x[:, 1], x[:, 2]], axis=-1)
        return ((far / host.array(scale)) ** 2).sum(-1) / 2

    target = host.ebm.EnergyBased(energy, event_shape=(3,))
    options = {"num_warmup": 200, "num_samples": 10, "init": start, "check": False}
    chains = host.run_chains(host.ebm.MALA(), target, **options)
    np.testing.assert_allclose(chains.state.scale, scale, rtol=0.1)


def test_trajectories_do_not_come_back_to_their_start(host):
    target = host.dist.Normal(host.array([0.0] * 10), 1.0).to_event(1)
    half_period = {"target_accept_prob": None, "adapt_mass_matrix": False}

    def r_hat(**options):
        sampler = host.ebm.HMC(math.pi / 10, **half_period, **options)
        chains = host.run_chains(sampler, target, num_chains=10, num_samples=200)
        return arviz.rhat(chains.to_arviz())["x"].max()

    assert r_hat() < 1.1
    assert r_hat(step_size_jitter=0.0) > 1.5


@pytest.mark.once
def test_chains_leave_steep_tails_in_warmup(host):
    # Draws of the base reach where the slope is 200, and E'' / E'' at the mode is 20.
    prior = host.ebm.EnergyBased(lambda x: x**4 - 2 * x, host.dist.Normal(0.0, 1.0))
    options = {"num_chains": 1000, "num_samples": 20, "num_warmup": 100}
    chains = host.run_chains(host.ebm.MALA(target_accept_prob=0.8), prior, **options)
    assert np.asarray(chains.samples).std() == pytest.approx(0.45027, rel=0.04)


@pytest.mark.once
def test_step_sizes_of_a_batch(host):
    target = host.dist.Normal(0.0, host.array([0.01, 1.0]))
    options = {"num_chains": 200, "num_samples": 10, "num_warmup": 300}
    sampler = host.ebm.MALA(0.1, adapt_mass_matrix=False)
    chains = host.run_chains(sampler, target, **options)
    small, large = chains.state.step_size.tolist()
    assert large / small == pytest.approx(1e4, rel=0.5)
    assert chains.statistics["step_size"].shape == (200, 10, 2)


def test_step_size_stays_without_a_target(host):
    sampler, target = host.ebm.MALA(0.1, target_accept_prob=None), host.dist.Normal(0.0, 1.0)
    chains = host.run_chains(sampler, target, num_samples=10, num_warmup=50)
    np.testing.assert_allclose(chains.statistics["step_size"], 0.1)


# --- warnings and progress ---


def test_trouble_is_warned_of(host):
    steep = host.ebm.EnergyBased(lambda x: 1e3 * x**4, host.dist.Normal(0.0, 1.0))
    # Slopes of 4e3 and more: a step leads a thousand units away.
    options = {"num_samples": 30, "init": host.array([1.0, -1.0, 2.0, -2.0])}
    with pytest.warns(UserWarning, match=r"\d+ of 120 kept transitions of Langevin.* diverged"):
        chains = host.run_chains(host.ebm.Langevin(0.5), steep, **options)
    assert chains.statistics["diverging"][:, -1].all()
    with (
        pytest.warns(UserWarning, match="of MALA.* diverged"),
        pytest.warns(UserWarning, match="4 of 4 chains of MALA.* are stuck"),
    ):
        exact = host.run_chains(host.ebm.MALA(0.5), steep, **options)
    assert np.isfinite(np.asarray(exact.samples)).all()


def test_progress_bar_changes_no_draw(host, capsys):
    target, options = host.dist.Normal(0.0, 1.0), {"num_samples": 45, "num_warmup": 7}
    shown = host.run_chains_with_a_bar(host.ebm.MALA(0.1), target, **options)
    assert "MALA" in capsys.readouterr().err
    hidden = host.run_chains(host.ebm.MALA(0.1), target, **options)
    assert capsys.readouterr().err == ""
    np.testing.assert_allclose(shown.samples, hidden.samples, atol=1e-5)


def test_a_distribution_is_probed_once(host):
    calls = []

    def energy(x):
        calls.append(len(x))
        return (x**2).sum(-1)

    base = host.dist.Normal(host.array([0.0, 0.0]), 1.0).to_event(1)
    prior, counts = host.ebm.EnergyBased(energy, base), []
    for _ in range(2):
        calls.clear()
        host.run_chains(host.ebm.MALA(0.1), prior, num_samples=2, num_chains=3)
        counts.append(len(calls))
    assert counts[1] <= counts[0] - 2
