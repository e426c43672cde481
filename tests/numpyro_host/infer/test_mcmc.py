"""The samplers of this package in NumPyro's MCMC."""

import arviz as az
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, init_to_value

import pyro_ebm.numpyro as ebm
from pyro_ebm.diagnostics import to_arviz

# z ~ exp(-1.5 z^2) N(z; 0, 1), precision 4, and x | z ~ N(z, 1): posterior N(x / 5, 1 / 5).
X = jnp.array([1.0, -2.0, 0.5])
# rate ~ Gamma(3, 2) and times | rate ~ Exponential(rate): posterior Gamma(3 + 4, 2 + 3).
TIMES = jnp.array([0.5, 1.5, 0.25, 0.75])


def model(x, times):
    rate = numpyro.sample("rate", dist.Gamma(3.0, 2.0))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", ebm.EnergyBased(lambda z: 1.5 * z**2, dist.Normal(0.0, 1.0)))
        numpyro.deterministic("twice", 2 * z)
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)
    with numpyro.plate("waits", len(times)):
        numpyro.sample("times", dist.Exponential(rate), obs=times)


def prepare(sampler, *, num_samples, num_warmup, model=model, init_strategy=None, **options):
    given = {} if init_strategy is None else {"init_strategy": init_strategy}
    kernel = ebm.SamplerKernel(model, sampler, **given)
    options = {"progress_bar": False, **options}
    return MCMC(kernel, num_samples=num_samples, num_warmup=num_warmup, **options)


def run(sampler, *, init_params=None, **options):
    mcmc = prepare(sampler, **options)
    mcmc.run(random.key(0), X, TIMES, init_params=init_params)
    return mcmc


def assert_posterior(mcmc):
    """Means and variances of every site, within four Monte Carlo errors."""
    by_chain = mcmc.get_samples(group_by_chain=True)
    rate = dist.Gamma(7.0, 5.0)
    for site, mean, variance in [("z", X / 5, 0.2), ("rate", rate.mean, rate.variance)]:
        draws, size = mcmc.get_samples()[site], effective_sample_size(by_chain[site])
        assert (size > 100).all()
        assert (jnp.abs(draws.mean(0) - mean) < 4 * jnp.sqrt(variance / size)).all()
        kurtosis = 3 + 6 / 7 if site == "rate" else 3
        error = variance * jnp.sqrt((kurtosis - 1) / size)
        assert (jnp.abs(draws.var(0) - variance) < 4 * error).all()


@pytest.fixture(scope="module")
def finished():
    """Two chains at once, from a bad step size."""
    return run(
        ebm.MALA(1e-3, adapt_mass_matrix=True),
        num_samples=1000,
        num_warmup=250,
        num_chains=2,
        chain_method="vectorized",
    )


def test_vectorized_chains_find_the_posterior_and_share_warm_up(finished):
    assert_posterior(finished)
    fields = finished.get_extra_fields(group_by_chain=True)
    assert fields["accept_prob"].shape == (2, 1000)
    assert 0.4 < fields["accept_prob"].mean() < 0.75
    step_size = fields["adapt_state.step_size"]
    assert (step_size == step_size[0, 0]).all()
    assert step_size[0, 0] > 0.1


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")  # NumPyro's own
@pytest.mark.parametrize("chain_method", ["sequential", jax.vmap])
def test_chains_one_by_one(chain_method):
    # What `parallel` does on several devices is `jax.pmap`, which is `jax.vmap` to a kernel.
    mcmc = run(
        ebm.HMC(0.1, num_steps=2),
        num_samples=1000,
        num_warmup=150,
        num_chains=2,
        chain_method=chain_method,
    )
    assert_posterior(mcmc)
    step_size = mcmc.get_extra_fields(group_by_chain=True)["adapt_state.step_size"]
    assert (step_size == step_size[:, :1]).all()
    assert step_size[0, 0] != step_size[1, 0]


def test_summary_and_arviz(finished, capsys):
    finished.print_summary()
    printed = capsys.readouterr().out
    assert "z[2]" in printed
    assert "twice" not in printed
    assert "Number of divergences: 0" in printed
    for data in (az.from_numpyro(finished), to_arviz(finished)):
        assert data.posterior["twice"].shape == data.posterior["z"].shape == (2, 1000, 3)
        names = {"lp", "acceptance_rate", "step_size", "diverging"}
        assert set(data.sample_stats) == names
    assert float(data.sample_stats["acceptance_rate"].mean()) > 0.4


def test_potential_energy_is_minus_the_unconstrained_density(finished):
    draws = {site: finished.get_samples()[site][-1] for site in ("z", "rate")}
    density, _ = numpyro.infer.util.log_density(model, (X, TIMES), {}, draws)
    energy = finished.get_extra_fields()["potential_energy"][-1]
    assert jnp.allclose(-energy, density + jnp.log(draws["rate"]), atol=1e-4)


def test_chains_start_at_init_params_and_are_independent():
    start = {"z": jnp.array([[-1.0], [1.0], [2.0]]) * jnp.ones(3), "rate": jnp.zeros(3)}
    mcmc = run(
        ebm.KineticLangevin(1e-4),
        num_samples=10,
        num_warmup=0,
        num_chains=3,
        thinning=2,
        chain_method="vectorized",
        init_params=start,
    )
    draws = mcmc.get_samples(group_by_chain=True)
    assert draws["z"].shape == (3, 5, 3)
    assert jnp.allclose(draws["z"][:, -1], start["z"], atol=1e-2)
    assert jnp.allclose(draws["rate"][:, -1], 1.0, atol=1e-2)
    assert not jnp.allclose(draws["z"][0] + 1, draws["z"][1] - 1, atol=1e-6)


def test_a_run_continues_from_its_state():
    mcmc = prepare(ebm.MALA(0.2), num_samples=20, num_warmup=30)
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


def test_compiled_arguments_and_the_progress_bar(capsys, monkeypatch):
    for name in ("CI", "PYTEST_XDIST_WORKER"):  # Where they are set, NumPyro draws no bars.
        monkeypatch.delenv(name, raising=False)
    mcmc = prepare(
        ebm.MALA(0.2, target_accept_prob=None),
        num_samples=30,
        num_warmup=10,
        jit_model_args=True,
        progress_bar=True,
    )
    mcmc.run(random.key(0), X, TIMES)
    near = mcmc.get_samples()["z"].mean(0)
    assert "step size 2.00e-01. acc. prob=" in capsys.readouterr().err
    mcmc.run(random.key(0), X + 10.0, TIMES)
    assert (mcmc.get_samples()["z"].mean(0) > near + 1).all()


# --- warnings and refusals ---


def test_a_doubly_intractable_model_warns():
    def doubly(x, _):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        energy = ebm.EnergyBased(lambda x: scale * (x**2).sum(-1), event_shape=(3,))
        numpyro.sample("x", energy, obs=x)

    # And by the gradient in `scale`, as under NUTS.
    with (
        pytest.warns(UserWarning, match="site 'x' .* latent variable 'scale'"),
        pytest.warns(UserWarning, match="a gradient in them was asked for"),
    ):
        run(ebm.MALA(0.1), num_samples=2, num_warmup=0, model=doubly)


def test_divergences_are_counted(capsys):
    def cliff(x, _):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.factor("f", jnp.where(z > 1, -1e6, 0.0))

    fixed = ebm.MALA(0.5, target_accept_prob=None)
    start = init_to_value(values={"z": 0.1})
    mcmc = run(fixed, num_samples=200, num_warmup=0, model=cliff, init_strategy=start)
    diverging = mcmc.get_extra_fields()["diverging"]
    assert 0 < diverging.sum() < 200
    assert (mcmc.get_samples()["z"] <= 1).all()
    mcmc.print_summary()
    assert f"Number of divergences: {diverging.sum()}" in capsys.readouterr().out


def test_refusals():
    with pytest.raises(TypeError, match="`sampler` to have init and step, .* got float"):
        ebm.SamplerKernel(model, 0.1)
    with pytest.raises(ValueError, match="continuous latent variable, got none"):
        run(
            ebm.MALA(0.1),
            num_samples=2,
            num_warmup=0,
            model=lambda x, _: numpyro.sample("x", dist.Normal(0.0, 1.0).expand([3]), obs=x),
        )
