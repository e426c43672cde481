import numpy as np
import pyro
import pytest
import torch
from helpers.infer import stock_tools as shared
from helpers.infer.stock_tools import *  # noqa: F403
from helpers.infer.stock_tools import MATRIX, PRIOR_COVARIANCE, X
from pyro import poutine
from pyro.infer import HMC, NUTS, Importance, Trace_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoGaussian,
    AutoNormalMessenger,
    AutoStructured,
    init_to_feasible,
    init_to_mean,
    init_to_median,
    init_to_sample,
    init_to_uniform,
)
from pyro.infer.inspect import get_dependencies
from scipy.stats import multivariate_normal
from torch import nn

import pyro_ebm.pyro as ebm


class Correlated(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.as_tensor(MATRIX, dtype=torch.float32))

    def forward(self, z):
        return 0.5 * (z * (z @ self.matrix)).sum(-1)


@pytest.mark.parametrize("kernel", [NUTS, HMC])
def test_mcmc_leaves_parameters_alone(host, kernel):
    energy = Correlated()

    def model(x):
        z = host.ppl.sample("z", host.prior(energy))
        host.ppl.sample("x", host.dist.Normal(z, 1.0).to_event(1), obs=x)

    host.mcmc(kernel(model), X, num_samples=10, num_warmup=10)
    assert energy.matrix.grad is None


@pytest.mark.parametrize(
    "strategy", [init_to_feasible, init_to_mean, init_to_median, init_to_sample, init_to_uniform]
)
def test_initialization(host, strategy):
    guide, x = AutoDelta(shared.model(host), init_loc_fn=strategy), host.array(X)
    guide(x)
    assert guide.median(x)["z"].shape == (2,)


def test_trace_importance_and_dependencies(host):
    model, x = shared.model(host), host.array(X)
    trace = poutine.trace(model).get_trace(x)
    trace.compute_log_prob()
    assert trace.nodes["z"]["log_prob"].shape == ()
    assert "z" in trace.format_shapes()
    posterior = Importance(model, num_samples=10)
    assert posterior.run(x).get_normalized_weights().shape == (10,)
    assert "z" in get_dependencies(model, (x,))["prior_dependencies"]


def test_a_guide_that_runs_the_model_observes_nothing(host):
    model, x = shared.model(host), host.array(X)
    guide = AutoNormalMessenger(model, init_scale=1.0)
    guide(x)
    losses, stock = [], Trace_ELBO(num_particles=3)
    for elbo in (stock, ebm.EnergyELBO({}, stock, num_normalizer_samples=0)):
        pyro.set_rng_seed(1)
        losses.append(elbo.loss(model, guide, x))
    assert losses[0] == losses[1] > 0
    exact = multivariate_normal.logpdf(X, cov=PRIOR_COVARIANCE + np.eye(2))
    found = ebm.log_marginal(model, guide, num_samples=20_000)(x)
    assert found.estimate.item() == pytest.approx(exact, abs=0.1)

    observed = host.observed_model(host.Bowl())
    guide, x = AutoNormalMessenger(observed), x[None]
    assert ebm.check_model(observed, guide)(x) == []
    assert ebm.EnergyELBO(ebm.MaximumLikelihood()).loss(observed, guide, x) > 0


@pytest.mark.parametrize("guide", [AutoStructured, AutoGaussian])
def test_a_parameter_is_no_latent_where_pyro_looks_for_dependencies(host, guide):
    def model(x):
        weight, base = pyro.param("weight", torch.tensor(0.7)), host.dist.Normal(0.0, 1.0)
        loc = pyro.sample("loc", base)
        z = pyro.sample("z", ebm.EnergyBased(lambda z: weight * z**2, base))
        pyro.sample("x", host.dist.Normal(z + loc, 1.0), obs=x)

    loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=1.0))
    fitted = host.fit(model, guide(model), loss, host.array(0.5))
    assert fitted.params["weight"] != 0.7
