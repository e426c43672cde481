"""A conditional of a joint energy as the likelihood of a latent variable, with exact posteriors."""

import numpy as np
import pytest

from helpers.distributions.joint import BASE_SCALE, SCALE, energy, log_likelihood
from helpers.issues import is_only

NUM_REPEATS, NUM_GROUPS = 4, 3
X = np.random.default_rng(1).normal(size=(NUM_REPEATS, NUM_GROUPS, 2)) + np.arange(3)[:, None]
PRECISION = 1 + NUM_REPEATS / SCALE**2


def groups(host):
    """Model of groups with a parameter of their own each, and repeated observations."""
    base = host.ebm.Joint(theta=host.normal(), x=host.normal(scale=BASE_SCALE))
    joint = host.ebm.EnergyBased(energy, base)

    def model(x):
        with host.ppl.plate("groups", NUM_GROUPS, dim=-1):
            theta = host.ppl.sample("theta", host.normal())
            with host.ppl.plate("repeats", NUM_REPEATS, dim=-2):
                host.ppl.sample("x", joint.conditional(theta=theta), obs=x)

    return model


def test_posterior_of_groups(host):
    """By the host's NUTS, without a complaint."""
    model = groups(host)
    assert host.ebm.check_model(model)(host.array(X)) == []
    mcmc = host.mcmc(host.infer.NUTS(model), X, num_samples=200, num_warmup=100)
    draws = host.to_numpy(mcmc.get_samples()["theta"])
    sd = PRECISION**-0.5
    np.testing.assert_allclose(draws.mean(0), X.sum(0) / SCALE**2 / PRECISION, atol=0.4 * sd)
    np.testing.assert_allclose(draws.std(0), sd, rtol=0.25)


def test_stock_elbo(host):
    """Value and gradient of minus the log-joint at a point."""
    start = np.random.default_rng(2).normal(size=(NUM_GROUPS, 2))

    def guide(x):
        at = host.ppl.param("at", host.array(start))
        with host.ppl.plate("groups", NUM_GROUPS, dim=-1):
            host.ppl.sample("theta", host.dist.Delta(at, event_dim=1))

    loss = host.infer.Trace_ELBO()
    value, gradients = host.loss_and_gradients(loss, groups(host), guide, host.array(X))
    prior = (start**2).sum() / 2 + start.size / 2 * np.log(2 * np.pi)
    assert value == pytest.approx(prior - log_likelihood(start, X).sum(), rel=1e-5)
    expected = start - (X - start).sum(0) / SCALE**2
    np.testing.assert_allclose(gradients["at"], expected, rtol=1e-4)


def test_other_latents_behind_the_energy(host):
    def model(x):
        rate = host.ppl.sample("rate", host.dist.LogNormal(0.0, 1.0))
        theta = host.ppl.sample("theta", host.normal())
        base = host.ebm.Joint(theta=host.normal(), x=host.normal())
        joint = host.ebm.EnergyBased(lambda theta, x: rate * energy(theta, x), base)
        host.ppl.sample("x", joint.conditional(theta=theta), obs=x)

    issues = host.ebm.check_model(model)(host.array(X[0, 0]))
    assert is_only(issues, "x", "doubly_intractable", "latent variable 'rate'")

    def guide(x):
        log_rate = host.ppl.param("log_rate", host.array(0.0))
        host.ppl.sample("rate", host.dist.Delta(host.xp.exp(log_rate)))
        host.ppl.sample("theta", host.dist.Delta(host.array(np.zeros(2)), event_dim=1))

    with host.refused_gradient("rate"):
        host.loss_and_gradients(host.infer.Trace_ELBO(), model, guide, host.array(X[0, 0]))
