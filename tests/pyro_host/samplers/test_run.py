import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.hosts.pyro import MLP, normal
from helpers.samplers.run import *  # noqa: F403

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.samplers.run import short_run

pytestmark = pytest.mark.usefixtures("float64")
SHORT_RUNS = [
    ebm.MALA(0.5),
    ebm.Langevin(0.1, temperature=lambda step: 1 / (1 + step), noise_scale=0.5),
    ebm.KineticLangevin(0.3),
]


@pytest.mark.parametrize(("sampler", "expected"), [(ebm.Langevin(0.1), 24), (ebm.MALA(0.1), 13)])
def test_energy_calls_of_a_run(host, sampler, expected):
    calls = []

    def energy(x):
        calls.append(len(x))
        return x.square().sum(-1)

    host.run_chains(sampler, ebm.EnergyBased(energy, event_shape=(2,)), num_samples=10)
    # Two calls of the probe. Unadjusted chains have no potential: it is evaluated at draws too.
    assert len(calls) == expected


@pytest.mark.parametrize("sampler", SHORT_RUNS)
def test_short_run_is_a_run_of_steps(sampler):
    potential, start = torch.square, torch.randn(7)
    pyro.set_rng_seed(1)
    state = sampler.init(potential, start)
    for _ in range(3):
        state, _ = sampler.step(potential, state)
    pyro.set_rng_seed(1)
    torch.testing.assert_close(short_run(sampler, potential, start, 3).samples, state.position)


@pytest.mark.parametrize("sampler", [ebm.Langevin(0.1), ebm.KineticLangevin(0.1)])
def test_short_run_takes_a_gradient_a_step(sampler):
    calls = []

    def potential(x):
        calls.append(x.requires_grad)
        return x.square()

    short_run(sampler, potential, torch.randn(7), 3)
    assert calls == [True] * 3


def test_short_run_of_a_kernel_with_a_step_of_its_own():
    class Clipped(ebm.Langevin):
        def step(self, potential, state):
            state, info = super().step(potential, state)
            return state._replace(position=state.position.clamp(-0.1, 0.1)), info

    moved = short_run(Clipped(0.5), torch.square, torch.randn(50), 3).samples
    assert moved.abs().max() <= 0.1


def test_continued_run():
    def run(**options):
        target = dist.Normal(torch.tensor([0.0, 3.0]), torch.tensor([1.0, 0.1]))
        sampler = ebm.MALA(0.5, adapt_mass_matrix=True)
        return ebm.run_chains(sampler, target, progress_bar=False, **options)

    pyro.set_rng_seed(0)
    whole = run(num_samples=10, num_warmup=100, num_chains=3)
    pyro.set_rng_seed(0)
    first = run(num_samples=5, num_warmup=100, num_chains=3)
    second = run(num_samples=5, init=first.state)
    assert first.state.scale.tolist() != [1.0, 1.0]
    torch.testing.assert_close(torch.cat([first.samples, second.samples], 1), whole.samples)


def test_compiled_steps(host):
    def run(**options):
        target = ebm.EnergyBased(MLP(), normal())
        options = {"num_samples": 5, "num_warmup": 5, **options}
        return host.run_chains(ebm.MALA(0.5), target, **options).samples

    torch.testing.assert_close(run(compile_steps=True), run())


def test_draws_of_half_precision():
    half = torch.zeros((), dtype=torch.bfloat16)
    density = ebm.EnergyBased(lambda x: 1.5 * x**2, dist.Normal(half, half + 1))
    chains = ebm.run_chains(ebm.MALA(), density, num_samples=250, progress_bar=False)
    assert chains.to_arviz().posterior["x"].dtype == "float32"


@pytest.mark.parametrize("context", [None, torch.ones(3)])
def test_trajectories_that_overflow(context):
    """The base was expanded, by the user or for a context, and has a validation of its own."""
    base = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
    density = ebm.EnergyBased(lambda x, *_: 1e4 * (x**4).sum(-1), base, context=context)
    options = {"num_samples": 20, "num_warmup": 50, "num_chains": 20, "progress_bar": False}
    with warnings.catch_warnings(action="ignore"):
        chains = ebm.run_chains(ebm.HMC(), density, **options)
    assert chains.samples.isfinite().all()


def test_rows_that_overflow_beside_others():
    base = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
    density = ebm.EnergyBased(lambda x: (x**4).sum(-1), base)
    x = torch.tensor([[0.5, -1.0], [float("nan"), 0.0], [2.0, 0.0], [float("inf"), 1.0]])
    expected = (x**4).sum(-1) - torch.distributions.Normal(0.0, 1.0, False).log_prob(x).sum(-1)
    with pyro.validation_enabled(is_validate=False):
        potential = density.potential(x)
    torch.testing.assert_close(potential[::2], expected[::2])
    assert potential[1::2].isnan().all()
    with pytest.raises(ValueError, match="to be within the support"):
        density.potential(x)
