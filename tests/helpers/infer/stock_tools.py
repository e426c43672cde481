"""The host's own tools on a model with an energy-based prior."""

from functools import cache

import numpy as np
import pytest

from pyro_ebm.diagnostics import to_arviz

# z ~ exp(-z^T A z / 2) N(z; 0, 2^2), x | z ~ N(z, 1): a posterior in closed form.
MATRIX = np.array([[1.0, 0.6], [0.6, 2.0]])
PRIOR_COVARIANCE = np.linalg.inv(MATRIX + np.eye(2) / 4)
X, COVARIANCE = np.array([0.5, -1.0]), np.linalg.inv(MATRIX + np.eye(2) / 4 + np.eye(2))
MEAN = COVARIANCE @ X


@cache
def model(host):
    def energy(z):
        return 0.5 * (z * (z @ host.array(MATRIX))).sum(-1)

    def model(x=None):
        z = host.ppl.sample("z", host.prior(energy))
        return host.ppl.sample("x", host.dist.Normal(z, 1.0).to_event(1), obs=x)

    return model


def fit(host, guide, elbo="Trace", num_steps=600, learning_rate=0.01):
    options = {"num_steps": num_steps, "learning_rate": learning_rate}
    return host.fit(model(host), guide, host.STOCK[elbo](), host.array(X), **options)


@cache
def nuts(host):
    """NUTS after its run."""
    return host.mcmc(host.infer.NUTS(model(host)), X, num_samples=400, num_warmup=150)


@pytest.mark.parametrize(
    ("name", "elbo"),
    [
        ("AutoNormal", "TraceMeanField x2"),
        ("AutoMultivariateNormal", "Trace x3"),
        ("AutoDelta", "Trace"),
    ],
)
def test_guides(host, name, elbo):
    guide = getattr(host.infer.autoguide, name)(model(host))
    draws = host.guide_draws(guide, fit(host, guide, elbo), X, num_samples=2000)
    # The last step is noisy: over seeds the mean is off by 0.06.
    np.testing.assert_allclose(draws.mean(0), MEAN, atol=0.2)
    if name == "AutoMultivariateNormal":
        np.testing.assert_allclose(np.cov(draws.T), COVARIANCE, atol=0.12)


def test_laplace(host):
    guide = host.infer.autoguide.AutoLaplaceApproximation(model(host))
    fitted = fit(host, guide, learning_rate=0.05)
    posterior = host.laplace(guide, fitted, X)
    covariance = host.to_numpy(posterior.covariance_matrix)
    np.testing.assert_allclose(covariance, COVARIANCE, atol=1e-3)
    np.testing.assert_allclose(host.to_numpy(posterior.mean), MEAN, atol=1e-2)


def check_mcmc(mcmc):
    """Moments of draws; the conversion to ArviZ."""
    data = to_arviz(mcmc)
    draws = data.posterior["z"].values
    np.testing.assert_allclose(draws.mean((0, 1)), MEAN, atol=0.12)
    np.testing.assert_allclose(np.cov(draws[0].T), COVARIANCE, atol=0.15)
    assert draws.shape[0] == 1
    return data


def test_nuts(host):
    assert "diverging" in check_mcmc(nuts(host)).sample_stats


def test_nuts_on_a_doubly_intractable_model(host):
    def doubly(x):
        scale = host.ppl.sample("scale", host.dist.LogNormal(0.0, 1.0))
        energy = host.ebm.EnergyBased(lambda x: scale * (x**2).sum(-1), event_shape=(2,))
        host.ppl.sample("x", energy, obs=x)

    with host.refused_gradient():
        host.mcmc(host.infer.NUTS(doubly), X, num_samples=2, num_warmup=1)


def test_predictive(host):
    some = host.prior_draws(model(host), num_samples=20, parallel=False)
    assert np.asarray(some["x"]).reshape(20, 2).shape == some["z"].reshape(20, 2).shape
    many = host.prior_draws(model(host), num_samples=4000, parallel=True)
    z, x = (host.to_numpy(many[name]).reshape(4000, 2) for name in ("z", "x"))
    np.testing.assert_allclose(np.cov(z.T), PRIOR_COVARIANCE, atol=0.12)
    np.testing.assert_allclose(np.cov((x - z).T), np.eye(2), atol=0.12)
    guide = host.infer.autoguide.AutoNormal(model(host))
    params = fit(host, guide, num_steps=50).params
    draws = host.predict(model(host), guide, params=params, num_samples=20)
    assert np.isfinite(host.to_numpy(draws["x"])).all()
    assert len(draws["x"]) == 20
