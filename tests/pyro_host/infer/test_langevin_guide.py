import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import linear_gaussian as truth
from helpers.infer.langevin_guide import *  # noqa: F403
from helpers.infer.langevin_guide import VARIANCE, best_toy
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.optim import Adam

import pyro_ebm.pyro as ebm


def test_particles_are_independent_chains(host):
    toy = best_toy(host)
    guide = ebm.LangevinGuide(toy.model, ebm.MALA(0.8))
    with pyro.plate("particles", 3, dim=-2):
        draws = guide()["z"]
    residuals = draws - truth.SLOPE * toy.x
    assert draws.shape == (3, truth.NUM_DATA)
    assert residuals.T.cov().diag().mean() > 0.5 * VARIANCE
    correlations = residuals.corrcoef() - torch.eye(3)
    assert correlations.abs().max() < 4 / math.sqrt(truth.NUM_DATA)


@pytest.mark.parametrize("parallel", [True, False])
def test_predictive_draws_from_it(host, parallel):
    toy = best_toy(host)
    guide = ebm.LangevinGuide(toy.model, ebm.MALA(0.8))
    predictive = Predictive(toy.model, guide=guide, num_samples=5, parallel=parallel)
    assert predictive()["x"].shape == (5, truth.NUM_DATA)


def test_latents_in_sequential_plates():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        for group in pyro.plate("groups", 2):
            pyro.sample(f"w_{group}", dist.Normal(0.0, 1.0))

    x = torch.randn(4)
    guide = ebm.LangevinGuide(model, ebm.MALA(0.05), num_steps=3)
    trace = poutine.trace(guide).get_trace(x)
    assert [trace.nodes[name]["fn"].batch_shape for name in ("w_0", "w_1")] == [(), ()]
    assert not trace.nodes["z"]["value"].requires_grad
    assert SVI(model, guide, Adam({"lr": 0.1}), Trace_ELBO()).evaluate_loss(x) > 0
