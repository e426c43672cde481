import pytest
import torch
from helpers.infer import stock_tools as shared
from helpers.infer.stock_tools import *  # noqa: F403
from helpers.infer.stock_tools import MATRIX, X
from pyro import poutine
from pyro.infer import HMC, NUTS, Importance
from pyro.infer.autoguide import (
    AutoDelta,
    init_to_feasible,
    init_to_mean,
    init_to_median,
    init_to_sample,
    init_to_uniform,
)
from pyro.infer.inspect import get_dependencies
from torch import nn


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
