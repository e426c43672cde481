import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.hosts.pyro import MLP, latent_model
from helpers.infer.mcmc import *  # noqa: F403
from helpers.infer.mcmc import X, check_posterior, finished, run
from pyro.infer import MCMC, NUTS, config_enumerate
from pyro.infer.autoguide import init_to_value

import pyro_ebm.pyro as ebm
from pyro_ebm.diagnostics import to_arviz


def test_hmc_finds_the_posterior(host):
    mcmc = run(host, ebm.HMC(0.1, num_steps=2), num_samples=500, num_warmup=100)
    assert 0.65 < check_posterior(mcmc)["acceptance_rate"].mean() < 0.95


def test_diagnostics(host):
    mcmc = finished(host)
    found = mcmc.diagnostics()
    statistics = check_posterior(mcmc)
    rate, step_size = (float(statistics[name].mean()) for name in ("acceptance_rate", "step_size"))
    assert found["acceptance rate"]["chain 0"] == pytest.approx(rate, rel=1e-4)
    assert found["step size"]["chain 0"] == pytest.approx(step_size, rel=1e-4)


@pytest.mark.parametrize(("target", "moves"), [(0.574, True), (None, False)])
def test_only_warm_up_tunes_the_step_size(host, target, moves):
    seen = []
    sampler = ebm.MALA(0.02, target_accept_prob=target)

    def hook(kernel, *_):
        seen.append(kernel.logging()["step size"])

    mcmc = run(host, sampler, num_samples=5, num_warmup=10, hook_fn=hook)
    assert (len(set(seen[:10])) > 1) == moves
    assert len(set(seen[9:])) == 1
    step_size = mcmc.diagnostics()["sample stats"]["chain 0"]["step_size"]
    assert bool((step_size == step_size[0]).all())


def importable_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", ebm.EnergyBased(lambda z: z**2, dist.Normal(0.0, 1.0)))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_kernels_can_be_pickled(host):
    options = {"num_samples": 4, "num_warmup": 0}
    mcmc = host.mcmc(ebm.SamplerKernel(importable_model, ebm.MALA(0.1)), X, **options)
    mcmc = host.mcmc(pickle.loads(pickle.dumps(mcmc.kernel)), X[:2], **options)
    assert mcmc.get_samples()["z"].shape == (4, 2)


# --- warnings ---


def test_a_discrete_latent_under_an_energy_warns(host):
    @config_enumerate
    def mixed(x, _):
        pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            kind = pyro.sample("kind", dist.Categorical(torch.ones(2)))
            pyro.sample("x", ebm.EnergyBased(lambda x: x**2, dist.Normal(0.0, kind + 1.0)), obs=x)

    with pytest.warns(UserWarning, match="weights of its values would be silently wrong"):
        run(host, ebm.MALA(0.1), num_samples=2, num_warmup=0, model=mixed)


def test_stuck_and_divergent_chains_warn(host):
    huge = ebm.MALA(1e4, target_accept_prob=None)
    with (
        pytest.warns(UserWarning, match="30 of 30 .*transitions .* model model diverged"),
        pytest.warns(UserWarning, match="1 of 1 chains .* stuck"),
    ):
        mcmc = run(host, huge, num_samples=30, num_warmup=0)
    assert mcmc.diagnostics()["divergences"]["chain 0"] == list(range(30))


def test_a_singular_matrix_is_a_divergence(host):
    def fragile():
        z = pyro.sample("z", dist.Normal(0.0, 0.2))
        pyro.factor("f", -torch.linalg.cholesky(torch.eye(2) * (1.0 - z.abs())).sum())

    start = init_to_value(values={"z": torch.tensor(0.1)})
    fixed = ebm.MALA(0.5, target_accept_prob=None)
    kernel = ebm.SamplerKernel(fragile, fixed, init_strategy=start)
    with pytest.warns(UserWarning, match="diverged"):
        mcmc = host.mcmc(kernel, num_samples=50, num_warmup=0)
    assert bool((mcmc.get_samples()["z"].abs() < 1).all())
    assert 0 < len(mcmc.diagnostics()["divergences"]["chain 0"]) < 50


@pytest.mark.parametrize("kernel", [NUTS, lambda model: ebm.SamplerKernel(model, ebm.MALA(0.001))])
def test_a_frozen_energy_is_no_matter_of_warnings(kernel):
    energy = MLP().requires_grad_(False).eval()
    mcmc = MCMC(kernel(latent_model(energy)), num_samples=2, warmup_steps=2, disable_progbar=True)
    mcmc.run(torch.zeros(3, 2))  # A warning is an error.
    assert mcmc.get_samples()["z"].shape == (2, 3, 2)


@pytest.mark.parametrize("num_samples", [1, 3])
def test_few_draws_have_no_diagnostics(host, num_samples):
    mcmc = run(host, ebm.MALA(0.001), num_samples=num_samples, num_warmup=2)
    data = to_arviz(mcmc)
    assert data.posterior["z"].shape[:2] == (1, num_samples)
