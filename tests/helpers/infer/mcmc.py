"""The samplers of this package in the host's MCMC."""

import itertools
from functools import cache

import arviz as az
import numpy as np
import pytest
from scipy import stats

from pyro_ebm.diagnostics import to_arviz

# z ~ exp(-1.5 z^2) N(z; 0, 1), precision 4, and x | z ~ N(z, 1): posterior N(x / 5, 1 / 5).
X = np.array([1.0, -2.0, 0.5])
# rate ~ Gamma(3, 2) and times | rate ~ Exponential(rate): posterior Gamma(3 + 4, 2 + 3).
TIMES = np.array([0.5, 1.5, 0.25, 0.75])


def posterior_model(host):
    def model(x, times):
        rate = host.ppl.sample("rate", host.dist.Gamma(3.0, 2.0))
        with host.ppl.plate("data", len(x)):
            prior = host.ebm.EnergyBased(lambda z: 1.5 * z**2, host.dist.Normal(0.0, 1.0))
            z = host.ppl.sample("z", prior)
            host.ppl.deterministic("twice", 2 * z)
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x)
        with host.ppl.plate("waits", len(times)):
            host.ppl.sample("times", host.dist.Exponential(rate), obs=times)

    return model


def run(host, sampler, *, model=None, **options):
    """MCMC after its run."""
    kernel = host.ebm.SamplerKernel(model or posterior_model(host), sampler)
    return host.mcmc(kernel, X, TIMES, **options)


@cache
def finished(host):
    """A run from a bad step size, of two chains at once where a host can."""
    sampler = host.ebm.MALA(1e-3, adapt_mass_matrix=True)
    return run(host, sampler, num_samples=1000, num_warmup=250, **host.TWO_CHAINS)


def check_posterior(mcmc):
    """Means and variances of every site, within four Monte Carlo errors."""
    data = to_arviz(mcmc)
    sizes = az.ess(data.posterior, var_names=["z", "rate"], method="mean")
    for site, mean, variance, kurtosis in (("z", X / 5, 0.2, 3), ("rate", 1.4, 0.28, 3 + 6 / 7)):
        size, draws = sizes[site].values, data.posterior[site].values
        assert (size > 60).all()
        assert (abs(draws.mean((0, 1)) - mean) < 4 * np.sqrt(variance / size)).all()
        error = variance * np.sqrt((kurtosis - 1) / size)
        assert (abs(draws.var((0, 1)) - variance) < 4 * error).all()
    return data.sample_stats


def test_mala_finds_the_posterior_from_a_bad_step_size(host):
    statistics = check_posterior(finished(host))
    assert 0.4 < statistics["acceptance_rate"].mean() < 0.75
    # Chains that run at once share it.
    (step_size,) = np.unique(statistics["step_size"])
    assert step_size > 0.1


def test_summary_and_arviz(host, capsys):
    mcmc = finished(host)
    host.print_summary(mcmc)
    printed = capsys.readouterr().out
    assert "z[2]" in printed
    assert "twice" not in printed
    assert "Number of divergences: 0" in printed
    data, stock = to_arviz(mcmc), host.stock_to_arviz(mcmc)
    assert data.posterior["z"].shape == (host.TWO_CHAINS.get("num_chains", 1), 1000, 3)
    assert stock.posterior["z"].shape == data.posterior["z"].shape
    assert stock.sample_stats["diverging"].shape == data.sample_stats["diverging"].shape
    assert set(data.sample_stats) == {"lp", "acceptance_rate", "step_size", "diverging"}


def test_log_likelihood_of_a_run(host):
    data = host.ebm.to_arviz(finished(host), log_likelihood=True)
    draws = {site: data.posterior[site].values[..., None] for site in ("z", "rate")}
    expected = stats.expon(0, 1 / draws["rate"]).logpdf(TIMES)
    np.testing.assert_allclose(data.log_likelihood["times"], expected, atol=1e-5)
    expected = stats.norm(draws["z"][..., 0]).logpdf(X)
    np.testing.assert_allclose(data.log_likelihood["x"], expected, atol=1e-5)


def test_lp_is_the_unconstrained_density(host):
    data = to_arviz(finished(host))
    z, rate = (data.posterior[site].values[-1, -1] for site in ("z", "rate"))
    log_prior = stats.gamma(3, scale=1 / 2).logpdf(rate) - 1.5 * (z**2).sum()
    log_prior += stats.norm.logpdf(z).sum()
    log_likelihood = stats.norm(z).logpdf(X).sum() + stats.expon(0, 1 / rate).logpdf(TIMES).sum()
    expected = log_prior + log_likelihood + np.log(rate)
    assert data.sample_stats["lp"].values[-1, -1] == pytest.approx(expected, abs=1e-4)


def test_replica_exchange_finds_both_modes_of_a_posterior(host):
    def model(*_):
        z = host.ppl.sample("z", host.dist.Normal(0.0, 10.0))
        host.ppl.sample("square", host.dist.Normal(z**2, 1 / 3), obs=host.array(4.0))

    sampler = host.ebm.ReplicaExchange(host.ebm.MALA(), temperatures=(36, 6, 1))
    mcmc = run(host, sampler, model=model, num_samples=800, num_warmup=300)
    data = to_arviz(mcmc)
    z = data.posterior["z"].values
    assert 0.1 < (z > 0).mean() < 0.9
    assert (abs(abs(z) - 2) < 5 / 12).all()
    assert 0.3 < data.sample_stats["acceptance_rate"].mean() < 0.8


def test_chains_start_at_initial_params_and_are_independent(host):
    start = {"z": np.array([[-1.0], [1.0], [2.0]]) * np.ones(3), "rate": np.zeros(3)}
    options = {"num_samples": 5, "num_warmup": 0, "num_chains": 3}
    data = to_arviz(run(host, host.ebm.KineticLangevin(1e-4), **options, init_params=start))
    z, rate = data.posterior["z"].values, data.posterior["rate"].values
    np.testing.assert_allclose(z[:, -1], start["z"], atol=1e-2)
    np.testing.assert_allclose(rate[:, -1], 1.0, atol=1e-2)
    assert data.sample_stats["lp"].shape == (3, 5)
    assert not np.allclose(z[0] + 1, z[1] - 1, rtol=0, atol=1e-6)


# --- codes ---

BITS = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
Y, ROWS = 1.5, np.array([0.8, 3.2])
SHARES = np.array([0.5, 0.3, 0.2])


def mixed_model(host):
    """A number, three bits under an energy, and a category in each row."""

    def model(*_):
        m = host.ppl.sample("m", host.dist.Normal(0.0, 1.0))
        base = host.dist.Bernoulli(host.array(np.full(3, 0.5))).to_event(1)
        energy = lambda x: -1.0 * (x[:, 0] * x[:, 1]) + 0.5 * x[:, 2]  # noqa: E731
        z = host.ppl.sample("z", host.ebm.EnergyBased(energy, base))
        host.ppl.sample("y", host.dist.Normal(m + z.sum(), 1.0), obs=host.array(Y))
        with host.ppl.plate("rows", len(ROWS)):
            c = host.ppl.sample("c", host.dist.Categorical(host.array(SHARES)))
            host.ppl.sample("row", host.dist.Normal(2.0 * c + z[0], 1.0), obs=host.array(ROWS))

    return model


def exact_posterior():
    """Probabilities of the bits, those of the rows' categories, and the mean of the number."""
    law = np.exp(BITS[:, 0] * BITS[:, 1] - 0.5 * BITS[:, 2])
    law = law * stats.norm(BITS.sum(-1), np.sqrt(2.0)).pdf(Y)
    of_rows = SHARES * stats.norm(2.0 * np.arange(3) + BITS[:, 0, None, None]).pdf(ROWS[:, None])
    law = law * of_rows.sum(-1).prod(-1)
    law = law / law.sum()
    categories = np.tensordot(law, of_rows / of_rows.sum(-1, keepdims=True), 1)
    return law, categories, (law * (Y - BITS.sum(-1)) / 2).sum()


@pytest.mark.once
def test_gibbs_sampling_of_codes_and_numbers(host):
    sampler = host.ebm.Gibbs(host.ebm.MALA())
    options = {"num_samples": 400, "num_warmup": 80}
    data = to_arviz(run(host, sampler, model=mixed_model(host), **options)).posterior
    draws = {name: data[name].values.reshape(-1, *data[name].shape[2:]) for name in "mzc"}
    law, categories, mean = exact_posterior()
    bits = (draws["z"][:, None] == BITS).all(-1).mean(0)
    np.testing.assert_allclose(bits, law, atol=0.12)
    found = (draws["c"][..., None] == np.arange(3)).mean(0)
    np.testing.assert_allclose(found, categories, atol=0.1)
    assert draws["m"].mean() == pytest.approx(mean, abs=0.25)


def test_codes_alone(host):
    def model(*_):
        base = host.dist.Bernoulli(host.array(np.full(3, 0.5))).to_event(1)
        host.ppl.sample("z", host.ebm.EnergyBased(lambda x: -1.0 * (x[:, 0] * x[:, 1]), base))

    mcmc = run(host, host.ebm.Gibbs(), model=model, num_samples=1000, num_warmup=10)
    data = to_arviz(mcmc)
    both = data.posterior["z"].values[..., :2].prod(-1).mean()
    assert both == pytest.approx(np.e / (np.e + 3), abs=0.06)
    assert (data.sample_stats["acceptance_rate"] == 1).all()


# --- warnings and refusals ---


def test_a_doubly_intractable_model_warns(host):
    def doubly(x, _):
        scale = host.ppl.sample("scale", host.dist.LogNormal(0.0, 1.0))
        energy = host.ebm.EnergyBased(lambda x: scale * (x**2).sum(-1), event_shape=(3,))
        host.ppl.sample("x", energy, obs=x)

    message = "site 'x' .* latent variable 'scale'"
    with pytest.warns(UserWarning, match=message) as caught, host.refused_by_kernel():
        run(host, host.ebm.MALA(0.1), num_samples=2, num_warmup=0, model=doubly)
    assert len(caught) == 1


def test_refusals(host):
    def observed(x, _):
        host.ppl.sample("x", host.dist.Normal(0.0, 1.0).expand([3]).to_event(1), obs=x)

    with pytest.raises(TypeError, match="`sampler` to have init and step, .* got float"):
        host.ebm.SamplerKernel(observed, 0.1)
    with pytest.raises(ValueError, match="continuous latent variable, got none"):
        run(host, host.ebm.MALA(0.1), num_samples=2, num_warmup=0, model=observed)
    with pytest.raises(ValueError, match="a discrete latent variable for Gibbs.*, got none"):
        run(host, host.ebm.Gibbs(), num_samples=2, num_warmup=0)
    with pytest.raises(ValueError, match="without derivatives"):
        run(host, host.ebm.GibbsWithGradients(), num_samples=2, num_warmup=0)
