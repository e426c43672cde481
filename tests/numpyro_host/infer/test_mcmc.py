import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from helpers.infer.mcmc import *  # noqa: F403
from helpers.infer.mcmc import TIMES, X, check_posterior, finished, posterior_model, run
from jax import random
from numpyro.infer import MCMC, init_to_value

import pyro_ebm.numpyro as ebm
from pyro_ebm.diagnostics import to_arviz


def prepare(host, sampler, **options):
    return MCMC(ebm.SamplerKernel(posterior_model(host), sampler), **options)


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")  # NumPyro's own
@pytest.mark.parametrize("chain_method", ["sequential", jax.vmap])
def test_chains_one_by_one(host, chain_method):
    # What `parallel` does on several devices is `jax.pmap`, which is `jax.vmap` to a kernel.
    options = {"num_warmup": 150, "num_chains": 2, "chain_method": chain_method, "thinning": 2}
    mcmc = run(host, ebm.HMC(0.1, num_steps=2), num_samples=1000, **options)
    step_size = check_posterior(mcmc)["step_size"].values
    assert step_size.shape == (2, 500)
    assert (step_size == step_size[:, :1]).all()
    assert step_size[0, 0] != step_size[1, 0]


def test_arviz_has_deterministic_sites(host):
    for data in (host.stock_to_arviz(finished(host)), to_arviz(finished(host))):
        assert data.posterior["twice"].shape == data.posterior["z"].shape
        names = {"lp", "acceptance_rate", "step_size", "diverging"}
        assert set(data.sample_stats) == names


def test_a_run_continues_from_its_state(host):
    mcmc = prepare(host, ebm.MALA(0.2), num_samples=20, num_warmup=30, progress_bar=False)
    mcmc.warmup(random.key(0), X, TIMES)
    warm = mcmc.last_state
    mcmc.run(random.key(1), X, TIMES)
    first = mcmc.last_state
    mcmc.post_warmup_state = first
    mcmc.run(random.key(2), X, TIMES)
    last = mcmc.last_state
    assert (warm.i, first.i, last.i) == (30, 50, 70)
    sizes = [state.adapt_state.step_size for state in (warm, first, last)]
    assert sizes[0] == sizes[1] == sizes[2]
    assert jnp.log(sizes[0]) == pytest.approx(warm.adapt_state.warmup.averaging.log_average)


def test_compiled_arguments_and_the_progress_bar(host, capsys, monkeypatch):
    for name in ("CI", "PYTEST_XDIST_WORKER"):  # Where they are set, NumPyro draws no bars.
        monkeypatch.delenv(name, raising=False)
    sampler = ebm.MALA(0.2, target_accept_prob=None)
    options = {"jit_model_args": True, "progress_bar": True}
    mcmc = prepare(host, sampler, num_samples=30, num_warmup=10, **options)
    mcmc.run(random.key(0), X, TIMES)
    near = mcmc.get_samples()["z"].mean(0)
    assert "step size 2.00e-01. acc. prob=" in capsys.readouterr().err
    mcmc.run(random.key(0), X + 10.0, TIMES)
    assert (mcmc.get_samples()["z"].mean(0) > near + 1).all()


def test_divergences_are_counted(host, capsys):
    def cliff():
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.factor("f", jnp.where(z > 1, -1e6, 0.0))

    fixed = ebm.MALA(0.5, target_accept_prob=None)
    kernel = ebm.SamplerKernel(cliff, fixed, init_strategy=init_to_value(values={"z": 0.1}))
    mcmc = host.mcmc(kernel, num_samples=200, num_warmup=0)
    diverging = mcmc.get_extra_fields()["diverging"]
    assert 0 < diverging.sum() < 200
    assert (mcmc.get_samples()["z"] <= 1).all()
    mcmc.print_summary()
    assert f"Number of divergences: {diverging.sum()}" in capsys.readouterr().out
