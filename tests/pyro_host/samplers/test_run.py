import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.hosts.pyro import MLP, normal
from helpers.targets import normal_p_value

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.samplers.run import move_values, short_run

pytestmark = pytest.mark.usefixtures("float64")

run_chains = partial(ebm.run_chains, progress_bar=False)


@pytest.mark.parametrize("sampler", [ebm.Langevin(0.1), ebm.MALA(0.1)])
def test_one_gradient_a_step(sampler):
    calls = []

    def energy(x):
        calls.append(len(x))
        return x.square().sum(-1)

    run_chains(sampler, ebm.EnergyBased(energy, event_shape=(2,)), num_chains=3, num_samples=10)
    # Unadjusted chains have no potential: it is evaluated at the start and at draws.
    assert len(calls) == (22 if isinstance(sampler, ebm.Langevin) else 11)


def test_short_run_is_a_run_of_steps():
    sampler, potential, start = ebm.MALA(0.5), torch.square, torch.randn(7)
    pyro.set_rng_seed(1)
    state = sampler.init(potential, start)
    for _ in range(3):
        state, _ = sampler.step(potential, state)
    pyro.set_rng_seed(1)
    torch.testing.assert_close(short_run(sampler, potential, start, 3), state.position)


def test_moved_values_stay_in_the_support():
    distribution, value = dist.Gamma(3.0, 2.0), torch.rand(500)
    moved = move_values(ebm.MALA(0.2), distribution, value, 100)
    assert distribution.support.check(moved).all()
    error = 4 * math.sqrt(3 / 4 / 500)
    assert moved.mean().item() == pytest.approx(1.5, abs=error)


def test_batched_and_constrained_distribution():
    distribution = dist.Gamma(torch.tensor([2.0, 20.0]), 2.0)
    sampler = ebm.MALA(0.05, target_accept_prob=0.9)
    options = {"num_chains": 500, "num_samples": 40, "num_warmup": 100, "thinning": 5}
    chains = run_chains(sampler, distribution, **options)
    assert chains.samples.shape == (500, 40, 2)
    assert chains.samples.mean((0, 1)).tolist() == pytest.approx([1.0, 10.0], rel=0.05)
    torch.testing.assert_close(chains.statistics["lp"], distribution.log_prob(chains.samples))
    assert chains.statistics["acceptance_rate"].shape == (500, 40, 2)
    assert not chains.statistics["diverging"].any()


@pytest.mark.parametrize(
    "sampler", [ebm.Langevin(0.1), ebm.KineticLangevin(0.3), ebm.MALA(0.1), ebm.HMC(0.3)]
)
def test_lp_and_ebm_energy(sampler):
    base = dist.Gamma(torch.tensor([2.0, 3.0]), 1.0).to_event(1)
    distribution = ebm.EnergyBased(lambda x: x.square().sum(-1), base)
    chains = run_chains(sampler, distribution, num_chains=2, num_samples=5, num_warmup=100)
    samples, statistics = chains.samples, chains.statistics
    torch.testing.assert_close(statistics["ebm_energy"], samples.square().sum(-1))
    torch.testing.assert_close(statistics["lp"], distribution.log_prob(samples))


# --- start ---


def test_number_of_chains_from_init():
    init = torch.full((3,), 2.0)
    first = run_chains(ebm.Langevin(1e-8), dist.Normal(0.0, 1.0), init=init, num_samples=1)
    torch.testing.assert_close(first.samples[:, 0], init, atol=1e-2, rtol=0)
    again = run_chains(ebm.Langevin(1e-8), dist.Normal(0.0, 1.0), init=first.state, num_samples=1)
    torch.testing.assert_close(again.samples, first.samples, atol=1e-2, rtol=0)


def test_continued_run():
    def run(**arguments):
        target = dist.Normal(torch.tensor([0.0, 3.0]), torch.tensor([1.0, 0.1]))
        return run_chains(ebm.MALA(0.5, adapt_mass_matrix=True), target, **arguments)

    pyro.set_rng_seed(0)
    whole = run(num_samples=10, num_warmup=100, num_chains=3)
    pyro.set_rng_seed(0)
    first = run(num_samples=5, num_warmup=100, num_chains=3)
    second = run(num_samples=5, init=first.state)
    assert first.state.scale.tolist() != [1.0, 1.0]
    torch.testing.assert_close(torch.cat([first.samples, second.samples], 1), whole.samples)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((ebm.MALA, dist.Normal(0.0, 1.0)), TypeError, "an instance, got the class MALA"),
        ((dist.Normal(0.0, 1.0), ebm.MALA()), TypeError, "init and step, .* got Normal"),
        ((ebm.MALA(), dist.Poisson(1.0)), ValueError, "a continuous support .* of Poisson"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        run_chains(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": torch.tensor([0.0, math.nan] * 2)}, "every chain to start .* in 2 of 4 chains"),
        ({"init": torch.zeros(3, 1)}, r"`init` of shape \(3,\) .*, got \(3, 1\)"),
        ({"init": torch.zeros(3), "num_chains": 4}, r"`init` of shape \(4, .* got \(3,\)"),
        ({"num_samples": 0}, "`num_samples` to be an integer of at least 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        run_chains(ebm.MALA(), dist.Normal(0.0, 1.0), **options)


# --- warm-up ---


@pytest.mark.parametrize("sampler", [ebm.MALA(), ebm.HMC(num_steps=7)])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_default_step_size_at_any_scale(sampler, scale):
    chains = run_chains(
        sampler, dist.Normal(5 * scale, scale), num_chains=2000, num_samples=1, num_warmup=300
    )
    assert normal_p_value(chains.samples / scale - 5) > 1e-3


def test_default_step_size_before_warmup():
    draws = 1e-3 * torch.randn(2000, 8)

    def potential(x):
        return x.square().sum(-1) / 2e-6

    step_size = ebm.MALA().init(potential, draws).step_size.item()
    assert step_size == pytest.approx(1e-6 / 2, rel=4 * math.sqrt(2 / 16_000))
    leapfrog = ebm.HMC().init(potential, draws).step_size.item()
    assert leapfrog == pytest.approx(math.sqrt(2 * step_size))


@pytest.mark.parametrize(
    ("sampler", "target"), [(ebm.MALA(1e-3, adapt_mass_matrix=True), 0.574), (ebm.HMC(9.0, 3), 0.8)]
)
def test_warmup_tunes_step_size_and_scales(sampler, target):
    adapts = sampler.adapt_mass_matrix
    # For HMC unequal scales too, or trajectories would come back to their start all at once.
    scale = torch.tensor([0.01, 1.0, 100.0] if adapts else [0.5, 0.7, 1.0])
    chains = run_chains(
        sampler,
        dist.Normal(torch.zeros(3), scale).to_event(1),
        num_samples=200,
        num_warmup=400,
        init=scale * torch.randn(100, 3),
    )
    rate = chains.statistics["acceptance_rate"].mean().item()
    assert rate == pytest.approx(target, abs=0.06)
    assert chains.statistics["step_size"].shape == (100, 200)
    torch.testing.assert_close(chains.samples.std((0, 1)), scale, rtol=0.05, atol=0)
    expected = scale if adapts else torch.tensor(1.0)
    torch.testing.assert_close(chains.state.scale, expected, rtol=0.1, atol=0)


def test_step_sizes_of_a_batch():
    target = dist.Normal(0.0, torch.tensor([0.01, 1.0]))
    chains = run_chains(ebm.MALA(0.1), target, num_chains=200, num_samples=10, num_warmup=300)
    small, large = chains.state.step_size.tolist()
    assert large / small == pytest.approx(1e4, rel=0.5)
    assert chains.statistics["step_size"].shape == (200, 10, 2)


def test_step_size_stays_without_a_target():
    sampler = ebm.MALA(0.1, target_accept_prob=None)
    chains = run_chains(sampler, dist.Normal(0.0, 1.0), num_samples=10, num_warmup=50)
    assert (chains.statistics["step_size"] == 0.1).all()


# --- warnings, progress, compilation ---


def test_trouble_is_warned_of():
    steep = ebm.EnergyBased(lambda x: 1e3 * x.pow(4), dist.Normal(0.0, 1.0))
    with pytest.warns(UserWarning, match=r"\d+ of 120 kept transitions of Langevin.* diverged"):
        chains = run_chains(ebm.Langevin(0.5), steep, num_samples=30)
    assert chains.statistics["diverging"][:, -1].all()
    with (
        pytest.warns(UserWarning, match="of MALA.* diverged"),
        pytest.warns(UserWarning, match="4 of 4 chains of MALA.* are stuck"),
    ):
        exact = run_chains(ebm.MALA(0.5), steep, num_samples=30)
    assert torch.isfinite(exact.samples).all()


def test_progress_bar(capsys):
    ebm.run_chains(ebm.MALA(0.1), dist.Normal(0.0, 1.0), num_samples=3)
    assert "MALA" in capsys.readouterr().err
    run_chains(ebm.MALA(0.1), dist.Normal(0.0, 1.0), num_samples=3)
    assert capsys.readouterr().err == ""


def test_compiled_steps():
    def run(**options):
        pyro.set_rng_seed(0)
        target = ebm.EnergyBased(MLP(), normal())
        return run_chains(ebm.MALA(0.5), target, num_samples=5, num_warmup=5, **options).samples

    torch.testing.assert_close(run(compile_steps=True), run())
