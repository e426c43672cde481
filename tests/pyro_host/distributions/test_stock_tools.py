"""Pyro's own tools on a model with an energy-based prior."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    HMC,
    MCMC,
    NUTS,
    SVI,
    Importance,
    Predictive,
    RenyiELBO,
    Trace_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import (
    AutoDelta,
    AutoLaplaceApproximation,
    AutoMultivariateNormal,
    AutoNormal,
    init_to_feasible,
    init_to_mean,
    init_to_median,
    init_to_sample,
    init_to_uniform,
)
from pyro.infer.inspect import get_dependencies
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm
from pyro_ebm.diagnostics import to_arviz


class Correlated(nn.Module):
    """Energy x^T A x / 2, for a posterior in closed form."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[1.0, 0.6], [0.6, 2.0]]))

    def forward(self, z):
        return 0.5 * (z * (z @ self.matrix)).sum(-1)


ENERGY = Correlated().requires_grad_(False).eval()
X = torch.tensor([0.5, -1.0])
# Posterior precision: energy + base N(0, 2^2) + likelihood N(z, 1).
PRECISION = ENERGY.matrix + torch.eye(2) / 4 + torch.eye(2)
MEAN = torch.linalg.solve(PRECISION, X)
COVARIANCE = torch.linalg.inv(PRECISION)


def model(x=None):
    pyro.module("energy", ENERGY)
    z = pyro.sample("z", ebm.EnergyBased(ENERGY, dist.Normal(torch.zeros(2), 2.0).to_event(1)))
    return pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def train(guide, loss, num_steps=600, lr=0.02):
    svi = SVI(model, guide, Adam({"lr": lr}), loss)
    for _ in range(num_steps):
        svi.step(X)
    return guide


@pytest.mark.parametrize(
    ("guide", "loss"),
    [
        (AutoNormal, Trace_ELBO()),
        (AutoNormal, TraceMeanField_ELBO()),
        (
            AutoMultivariateNormal,
            Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=0),
        ),
        (AutoDelta, Trace_ELBO()),
        (AutoNormal, RenyiELBO(num_particles=2)),
    ],
)
def test_guides(guide, loss):
    fitted = train(guide(model), loss)
    draws = torch.stack([fitted(X)["z"].detach() for _ in range(2000)])
    torch.testing.assert_close(draws.mean(0), MEAN, atol=0.12, rtol=0)
    if guide is AutoMultivariateNormal:
        torch.testing.assert_close(draws.T.cov(), COVARIANCE, atol=0.12, rtol=0)


def test_laplace():
    fitted = train(AutoLaplaceApproximation(model), Trace_ELBO(), lr=0.05)
    posterior = fitted.laplace_approximation(X).get_posterior(X)
    torch.testing.assert_close(posterior.covariance_matrix, COVARIANCE, atol=1e-3, rtol=0)
    torch.testing.assert_close(posterior.mean, MEAN, atol=1e-2, rtol=0)


@pytest.mark.parametrize("kernel", [NUTS, HMC])
@pytest.mark.parametrize("trainable", [False, True])
def test_mcmc(kernel, trainable):
    energy = Correlated().requires_grad_(trainable)

    def trainable_model(x):
        z = pyro.sample("z", ebm.EnergyBased(energy, dist.Normal(torch.zeros(2), 2.0).to_event(1)))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    mcmc = MCMC(kernel(trainable_model), num_samples=400, warmup_steps=150, disable_progbar=True)
    mcmc.run(X)
    draws = mcmc.get_samples()["z"]
    torch.testing.assert_close(draws.mean(0), MEAN, atol=0.12, rtol=0)
    torch.testing.assert_close(draws.T.cov(), COVARIANCE, atol=0.15, rtol=0)
    assert energy.matrix.grad is None
    idata = to_arviz(mcmc)
    assert idata["posterior"]["z"].shape == (1, 400, 2)
    assert "diverging" in idata["sample_stats"] or kernel is HMC


def test_nuts_on_a_doubly_intractable_model():
    def doubly(x):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        energy = lambda z: scale * ENERGY(z)  # noqa: E731
        pyro.sample("x", ebm.EnergyBased(energy, event_shape=(2,)), obs=x)

    mcmc = MCMC(NUTS(doubly), num_samples=2, warmup_steps=1, disable_progbar=True)
    with pytest.raises(ValueError, match="doubly intractable"):
        mcmc.run(X)


def test_predictive():
    guide = train(AutoNormal(model), Trace_ELBO(), num_steps=50)
    for parallel in (False, True):
        prior = Predictive(model, num_samples=20, parallel=parallel)()
        assert prior["z"].shape[0] == 20
        assert prior["x"].reshape(20, 2).isfinite().all()
    posterior = Predictive(model, guide=guide, num_samples=20)()
    assert posterior["x"].shape[0] == 20
    many = Predictive(model, num_samples=4000, parallel=True)()["z"].reshape(-1, 2)
    prior_covariance = torch.linalg.inv(ENERGY.matrix + torch.eye(2) / 4)
    torch.testing.assert_close(many.T.cov(), prior_covariance, atol=0.12, rtol=0)


@pytest.mark.parametrize(
    "strategy", [init_to_feasible, init_to_mean, init_to_median, init_to_sample, init_to_uniform]
)
def test_initialization(strategy):
    guide = AutoDelta(model, init_loc_fn=strategy)
    guide(X)
    assert guide.median(X)["z"].shape == (2,)


def test_trace_importance_and_dependencies():
    trace = poutine.trace(model).get_trace(X)
    trace.compute_log_prob()
    assert trace.nodes["z"]["log_prob"].shape == ()
    assert "z" in trace.format_shapes()
    posterior = Importance(model, num_samples=10)
    assert posterior.run(X).get_normalized_weights().shape == (10,)
    assert "z" in get_dependencies(model, (X,))["prior_dependencies"]
