"""The samplers of this package in Pyro's MCMC."""

import pickle

import arviz as az
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, config_enumerate
from pyro.infer.autoguide import init_to_uniform, init_to_value

import pyro_ebm.pyro as ebm
from pyro_ebm.diagnostics import to_arviz

# z ~ exp(-1.5 z^2) N(z; 0, 1), precision 4, and x | z ~ N(z, 1): posterior N(x / 5, 1 / 5).
X = torch.tensor([1.0, -2.0, 0.5])
# rate ~ Gamma(3, 2) and times | rate ~ Exponential(rate): posterior Gamma(3 + 4, 2 + 3).
TIMES = torch.tensor([0.5, 1.5, 0.25, 0.75])


def model(x, times):
    rate = pyro.sample("rate", dist.Gamma(3.0, 2.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", ebm.EnergyBased(lambda z: 1.5 * z**2, dist.Normal(0.0, 1.0)))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    with pyro.plate("waits", len(times)):
        pyro.sample("times", dist.Exponential(rate), obs=times)


def run(sampler, *, num_samples, warmup_steps, model=model, init_strategy=init_to_uniform, **more):
    kernel = ebm.SamplerKernel(model, sampler, init_strategy=init_strategy)
    mcmc = MCMC(kernel, num_samples, warmup_steps, disable_progbar=True, **more)
    mcmc.run(X, TIMES)
    return mcmc


def assert_posterior(mcmc):
    """Means and variances of every site, within four Monte Carlo errors."""
    diagnostics = mcmc.diagnostics()
    rate = dist.Gamma(7.0, 5.0)
    for site, mean, variance in [
        ("z", X / 5, torch.tensor(0.2)),
        ("rate", rate.mean, rate.variance),
    ]:
        draws, size = mcmc.get_samples()[site], diagnostics[site]["n_eff"]
        assert bool((size > 60).all())
        assert bool(((draws.mean(0) - mean).abs() < 4 * (variance / size).sqrt()).all())
        kurtosis = 3 + 6 / 7 if site == "rate" else 3
        error = variance * ((kurtosis - 1) / size).sqrt()
        assert bool(((draws.var(0) - variance).abs() < 4 * error).all())


@pytest.fixture(scope="module")
def finished():
    pyro.set_rng_seed(0)
    torch.set_num_threads(1)
    return run(ebm.MALA(1e-3, adapt_mass_matrix=True), num_samples=1000, warmup_steps=250)


def test_mala_finds_the_posterior_from_a_bad_step_size(finished):
    assert_posterior(finished)
    assert 0.4 < finished.diagnostics()["acceptance rate"]["chain 0"] < 0.75
    assert finished.diagnostics()["step size"]["chain 0"] > 0.1


def test_hmc_finds_the_posterior():
    mcmc = run(ebm.HMC(0.1, num_steps=2), num_samples=500, warmup_steps=100)
    assert_posterior(mcmc)
    assert 0.65 < mcmc.diagnostics()["acceptance rate"]["chain 0"] < 0.95


def test_summary_and_arviz(finished, capsys):
    finished.summary()
    printed = capsys.readouterr().out
    assert "z[2]" in printed
    assert "Number of divergences: 0" in printed
    assert az.from_pyro(finished, log_likelihood=False).sample_stats["diverging"].shape == (1, 1000)
    data = to_arviz(finished)
    assert data.posterior["z"].shape == (1, 1000, 3)
    assert set(data.sample_stats) == {"lp", "acceptance_rate", "step_size", "diverging"}
    rate = finished.diagnostics()["acceptance rate"]["chain 0"]
    assert float(data.sample_stats["acceptance_rate"].mean()) == pytest.approx(rate, rel=1e-4)


def test_lp_is_the_unconstrained_density(finished):
    last = {site: draws[-1] for site, draws in finished.get_samples().items()}
    trace = poutine.trace(poutine.condition(model, last)).get_trace(X, TIMES)
    expected = trace.log_prob_sum() + last["rate"].log()
    lp = finished.diagnostics()["sample stats"]["chain 0"]["lp"]
    torch.testing.assert_close(lp[-1], expected, atol=1e-4, rtol=1e-5)


def test_chains_start_at_initial_params_and_are_independent(monkeypatch):
    monkeypatch.setattr("torch.multiprocessing.cpu_count", lambda: 1)
    start = {"z": torch.tensor([[-1.0], [1.0], [2.0]]).expand(3, 3), "rate": torch.zeros(3)}
    with pytest.warns(UserWarning, match="drawn sequentially"):
        mcmc = run(
            ebm.Langevin(1e-8),
            num_samples=5,
            warmup_steps=0,
            num_chains=3,
            initial_params=start,
        )
    draws = mcmc.get_samples(group_by_chain=True)
    torch.testing.assert_close(draws["z"][:, -1], start["z"], atol=1e-2, rtol=0)
    torch.testing.assert_close(draws["rate"][:, -1], torch.ones(3), atol=1e-2, rtol=0)
    assert to_arviz(mcmc).sample_stats["lp"].shape == (3, 5)
    assert not torch.equal(draws["z"][0] + 1, draws["z"][1] - 1)


@pytest.mark.parametrize(("target", "moves"), [(0.574, True), (None, False)])
def test_only_warm_up_tunes_the_step_size(target, moves):
    seen = []
    mcmc = run(
        ebm.MALA(0.2, target_accept_prob=target),
        num_samples=5,
        warmup_steps=10,
        hook_fn=lambda kernel, *_: seen.append(kernel.logging()["step size"]),
    )
    assert (len(set(seen[:10])) > 1) == moves
    assert len(set(seen[9:])) == 1
    step_size = mcmc.diagnostics()["sample stats"]["chain 0"]["step_size"]
    assert bool((step_size == step_size[0]).all())


def test_kernels_can_be_pickled(finished):
    kernel = pickle.loads(pickle.dumps(finished.kernel))
    mcmc = MCMC(kernel, 4, 0, disable_progbar=True)
    mcmc.run(X[:2], TIMES)
    assert mcmc.get_samples()["z"].shape == (4, 2)


# --- warnings and refusals ---


def test_a_doubly_intractable_model_warns():
    def doubly(x, _):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        pyro.sample(
            "x", ebm.EnergyBased(lambda x: scale * x.square().sum(-1), event_shape=(3,)), obs=x
        )

    # The gradient in `scale` is then refused, as it is under NUTS.
    with (
        pytest.warns(UserWarning, match="site 'x' .* latent variable 'scale'"),
        pytest.raises(ValueError, match="doubly intractable"),
    ):
        run(ebm.MALA(0.1), num_samples=2, warmup_steps=0, model=doubly)


def test_a_discrete_latent_under_an_energy_warns():
    @config_enumerate
    def mixed(x, _):
        pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            kind = pyro.sample("kind", dist.Categorical(torch.ones(2)))
            pyro.sample("x", ebm.EnergyBased(lambda x: x**2, dist.Normal(0.0, kind + 1.0)), obs=x)

    with pytest.warns(UserWarning, match="weights of its values would be silently wrong"):
        run(ebm.MALA(0.1), num_samples=2, warmup_steps=0, model=mixed)


def test_stuck_and_divergent_chains_warn():
    huge = ebm.MALA(1e4, target_accept_prob=None)
    with (
        pytest.warns(UserWarning, match="30 of 30 .*transitions .* model model diverged"),
        pytest.warns(UserWarning, match="1 of 1 chains .* stuck"),
    ):
        mcmc = run(huge, num_samples=30, warmup_steps=0)
    assert mcmc.diagnostics()["divergences"]["chain 0"] == list(range(30))


def test_a_singular_matrix_is_a_divergence():
    fixed = ebm.MALA(0.5, target_accept_prob=None)

    def fragile(x, _):
        z = pyro.sample("z", dist.Normal(0.0, 0.2))
        pyro.factor("f", -torch.linalg.cholesky(torch.eye(2) * (1.0 - z.abs())).sum())

    start = init_to_value(values={"z": torch.tensor(0.1)})
    with pytest.warns(UserWarning, match="diverged"):
        mcmc = run(fixed, num_samples=50, warmup_steps=0, model=fragile, init_strategy=start)
    assert bool((mcmc.get_samples()["z"].abs() < 1).all())
    assert 0 < len(mcmc.diagnostics()["divergences"]["chain 0"]) < 50


def test_refusals():
    with pytest.raises(TypeError, match="`sampler` to have init and step, .* got float"):
        ebm.SamplerKernel(model, 0.1)
    with pytest.raises(ValueError, match="continuous latent variable, got none"):
        run(
            ebm.MALA(0.1),
            num_samples=2,
            warmup_steps=0,
            model=lambda x, _: pyro.sample(
                "x", dist.Normal(0.0, 1.0).expand([3]).to_event(1), obs=x
            ),
        )
