import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.samplers.target import unconstrained_potential

pytestmark = pytest.mark.usefixtures("float64")


def test_one_gradient_a_step():
    calls = []

    def energy(x):
        calls.append(len(x))
        return x.square().sum(-1)

    distribution = ebm.EnergyBased(energy, event_shape=(2,))
    for sampler in (ebm.Langevin(0.1), ebm.MALA(0.1)):
        calls.clear()
        ebm.run_chains(sampler, distribution, num_chains=3, num_samples=10, progress_bar=False)
        # Unadjusted chains know no potential: it is evaluated at the start and at draws.
        assert len(calls) == (22 if isinstance(sampler, ebm.Langevin) else 11)


def test_chains_of_batched_and_constrained_distributions():
    distribution = dist.Gamma(torch.tensor([2.0, 20.0]), 2.0)
    chains = ebm.run_chains(
        ebm.MALA(0.05, target_acceptance=0.9),
        distribution,
        num_chains=500,
        num_samples=40,
        num_warmup=100,
        thinning=5,
        progress_bar=False,
    )
    assert chains.samples.shape == (500, 40, 2)
    assert chains.samples.mean((0, 1)).tolist() == pytest.approx([1.0, 10.0], rel=0.05)
    torch.testing.assert_close(chains.statistics["lp"], distribution.log_prob(chains.samples))
    assert chains.statistics["acceptance_rate"].shape == (500, 40, 2)
    assert not chains.statistics["diverging"].any()


def test_a_run_goes_on_from_its_state():
    def run(**arguments):
        return ebm.run_chains(
            ebm.MALA(0.5, adapt_scale=True),
            dist.Normal(torch.tensor([0.0, 3.0]), torch.tensor([1.0, 0.1])),
            num_chains=3,
            progress_bar=False,
            **arguments,
        )

    pyro.set_rng_seed(0)
    whole = run(num_samples=10, num_warmup=100)
    pyro.set_rng_seed(0)
    first = run(num_samples=5, num_warmup=100)
    second = run(num_samples=5, init=first.state)
    assert first.state.scale.tolist() != [1.0, 1.0]
    torch.testing.assert_close(torch.cat([first.samples, second.samples], 1), whole.samples)


def test_divergences_are_counted():
    steep = ebm.EnergyBased(lambda x: 1e3 * x.pow(4), dist.Normal(0.0, 1.0))
    with pytest.warns(UserWarning, match=r"\d+ of 120 transitions .* of Langevin.* diverged"):
        chains = ebm.run_chains(
            ebm.Langevin(0.5), steep, num_chains=4, num_samples=30, progress_bar=False
        )
    assert chains.statistics["diverging"][:, -1].all()
    with (
        pytest.warns(UserWarning, match="of MALA.* diverged"),
        pytest.warns(UserWarning, match="4 of 4 chains of MALA.* are stuck"),
    ):
        exact = ebm.run_chains(
            ebm.MALA(0.5), steep, num_chains=4, num_samples=30, progress_bar=False
        )
    assert torch.isfinite(exact.samples).all()


def test_progress_bar_can_be_turned_off(capsys):
    arguments = {"num_chains": 2, "num_samples": 3}
    ebm.run_chains(ebm.MALA(0.1), dist.Normal(0.0, 1.0), **arguments)
    assert "MALA" in capsys.readouterr().err
    ebm.run_chains(ebm.MALA(0.1), dist.Normal(0.0, 1.0), progress_bar=False, **arguments)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("sampler", "target"),
    [(ebm.MALA(1e-3, adapt_scale=True), 0.574), (ebm.HMC(9.0, num_leapfrog=3), 0.8)],
)
def test_warmup_tunes_step_size_and_scales(sampler, target):
    # For HMC unequal scales too, or trajectories would come back to their start all at once.
    scale = torch.tensor([0.01, 1.0, 100.0] if sampler.adapt_scale else [0.5, 0.7, 1.0])
    chains = ebm.run_chains(
        sampler,
        dist.Normal(torch.zeros(3), scale).to_event(1),
        num_chains=100,
        num_samples=200,
        num_warmup=400,
        init=scale * torch.randn(100, 3),
        progress_bar=False,
    )
    rate = chains.statistics["acceptance_rate"].mean().item()
    assert rate == pytest.approx(target, abs=0.06)
    assert chains.statistics["step_size"].shape == (100, 200)
    torch.testing.assert_close(chains.samples.std((0, 1)), scale, rtol=0.05, atol=0)
    if sampler.adapt_scale:
        torch.testing.assert_close(chains.state.scale, scale, rtol=0.1, atol=0)
    else:
        assert chains.state.scale.tolist() == 1.0


def test_each_element_of_a_batch_gets_a_step_size_of_its_own():
    scale = torch.tensor([0.01, 1.0])
    chains = ebm.run_chains(
        ebm.MALA(0.1),
        dist.Normal(0.0, scale),
        num_chains=200,
        num_samples=10,
        num_warmup=300,
        progress_bar=False,
    )
    small, large = chains.state.step_size.tolist()
    assert large / small == pytest.approx(1e4, rel=0.5)
    assert chains.statistics["step_size"].shape == (200, 10, 2)


def test_nothing_is_tuned_where_no_target_is_given():
    chains = ebm.run_chains(
        ebm.MALA(0.1, target_acceptance=None),
        dist.Normal(0.0, 1.0),
        num_samples=10,
        num_warmup=50,
        progress_bar=False,
    )
    assert (chains.statistics["step_size"] == 0.1).all()


@pytest.mark.parametrize(
    "sampler", [ebm.Langevin(0.1), ebm.KineticLangevin(0.3), ebm.MALA(0.1), ebm.HMC(0.3)]
)
def test_lp_and_ebm_energy(sampler):
    base = dist.Gamma(torch.tensor([2.0, 3.0]), 1.0).to_event(1)
    distribution = ebm.EnergyBased(lambda x: x.square().sum(-1), base)
    chains = ebm.run_chains(
        sampler, distribution, num_chains=2, num_samples=5, num_warmup=100, progress_bar=False
    )
    samples, statistics = chains.samples, chains.statistics
    torch.testing.assert_close(statistics["ebm_energy"], samples.square().sum(-1))
    torch.testing.assert_close(statistics["lp"], distribution.log_prob(samples))


def test_compiled_steps_draw_the_same():
    energy = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.SiLU(), torch.nn.Linear(8, 1))

    def run(**options):
        pyro.set_rng_seed(0)
        base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        return ebm.run_chains(
            ebm.MALA(0.5),
            ebm.EnergyBased(torch.nn.Sequential(energy, torch.nn.Flatten(0)), base),
            num_samples=5,
            num_warmup=5,
            progress_bar=False,
            **options,
        ).samples

    torch.testing.assert_close(run(compile_steps=True), run())


def test_change_of_variables():
    distribution = dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0]))
    position = torch.randn(5, 2)
    bijection = torch.distributions.biject_to(distribution.support)
    value = bijection(position)
    expected = -distribution.log_prob(value) - bijection.log_abs_det_jacobian(position, value)
    torch.testing.assert_close(unconstrained_potential(distribution)(position), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ebm.Langevin(0.0), "`step_size` to be a positive number, got 0.0"),
        (lambda: ebm.MALA(-1.0), "`step_size` to be a positive number, got -1.0"),
        (lambda: ebm.MALA(0.1, num_steps=0), "`num_steps` to be an integer of at least 1, got 0"),
        (lambda: ebm.HMC(0.1, num_leapfrog=0), "`num_leapfrog` to be an integer of at least 1"),
        (lambda: ebm.MALA(0.1, target_acceptance=1.0), "`target_acceptance` to be .* got 1.0"),
        (lambda: ebm.Langevin(0.1, noise_scale=-1.0), "`noise_scale` to be .* got -1.0"),
        (lambda: ebm.Langevin(0.1, temperature=0.0), "`temperature` to be .* got 0.0"),
        (lambda: ebm.KineticLangevin(0.1, friction=0.0), "`friction` to be .* got 0.0"),
        (
            lambda: ebm.run_chains(ebm.MALA(0.1), dist.Normal(0.0, 1.0), num_samples=0),
            "`num_samples` to be an integer of at least 1, got 0",
        ),
        (
            lambda: ebm.run_chains(ebm.MALA(0.1), dist.Poisson(1.0)),
            "a continuous support .* of Poisson",
        ),
        (
            lambda: ebm.run_chains(
                ebm.MALA(0.1), dist.Normal(0.0, 1.0), init=torch.tensor([0.0, math.nan] * 2)
            ),
            "every chain to start where .* in 2 of 4 chains",
        ),
        (
            lambda: ebm.run_chains(ebm.MALA(0.1), dist.Normal(0.0, 1.0), num_chains=0),
            "`num_chains` to be an integer of at least 1, got 0",
        ),
        (
            lambda: ebm.run_chains(ebm.MALA(0.1), dist.Normal(0.0, 1.0), init=torch.zeros(3)),
            r"`init` of shape \(4,\) .*, got \(3,\)",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
