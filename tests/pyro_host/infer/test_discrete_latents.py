"""A prior over bits in a latent-variable model, whose guide learns by score functions."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, TraceEnum_ELBO, TraceGraph_ELBO
from pyro.optim import Adam

import pyro_ebm.pyro as ebm

MIXING = torch.tensor([[2.0, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, -1.0], [0.0, 0.0, 2.0, 1.0]])


def data(number=400):
    z = (torch.rand(number, 3) < torch.tensor([0.2, 0.5, 0.9])).float()
    return z.mean(0), z @ MIXING + 0.4 * torch.randn(number, 4)


def model(x):
    weights = pyro.param("weights", torch.zeros(3))
    base = dist.Bernoulli(torch.full((3,), 0.5)).to_event(1)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", ebm.EnergyBased(lambda z: -(z * weights).sum(-1), base))
        pyro.sample("x", dist.Normal(z @ MIXING, 0.4).to_event(1), obs=x)


def guide(x):
    slope = pyro.param("slope", torch.tensor(4.0))
    logits = slope * (x @ torch.linalg.pinv(MIXING) - 0.5)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=logits).to_event(1))


def test_prior_and_guide_learn():
    share, x = data()
    objective = ebm.EnergyDiscrepancy(perturbation=ebm.Uniform(1.0))
    svi = SVI(model, guide, Adam({"lr": 0.03}), ebm.EnergyELBO(objective, TraceGraph_ELBO()))
    for _ in range(300):
        svi.step(x)
    assert pyro.param("weights").sigmoid().tolist() == pytest.approx(share.tolist(), abs=0.06)
    assert pyro.param("slope") > 5.0  # The posterior is sharp.


CENTERS = torch.tensor([-2.0, 0.0, 2.0])


@pytest.mark.parametrize(
    ("elbo", "infer"),
    [
        (TraceEnum_ELBO(max_plate_nesting=1), {"enumerate": "parallel"}),
        (TraceGraph_ELBO(), {}),
    ],
    ids=["enumeration", "score function"],
)
def test_a_prior_over_one_code(elbo, infer):
    share = torch.tensor([0.6, 0.3, 0.1])
    code = torch.arange(3).repeat_interleave((400 * share).long())
    x = CENTERS[code] + 0.5 * torch.randn(400)

    def model(x):
        weights = pyro.param("weights", torch.zeros(3))
        prior = ebm.EnergyBased(lambda k: -weights[k], dist.Categorical(torch.ones(3) / 3))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", prior)
            pyro.sample("x", dist.Normal(CENTERS[k], 0.5), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(1.0))
        logits = -slope * (x[:, None] - CENTERS) ** 2
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=logits), infer=infer)

    loss = ebm.EnergyELBO(ebm.EnergyDiscrepancy(perturbation=ebm.Uniform(1.0)), elbo)
    svi = SVI(model, guide, Adam({"lr": 0.05}), loss)
    for _ in range(150):
        svi.step(x)
    assert pyro.param("weights").softmax(0).tolist() == pytest.approx(share.tolist(), abs=0.06)
    assert pyro.param("slope") > 1.5


def test_nuts_refuses():
    mcmc = MCMC(NUTS(model), num_samples=1, warmup_steps=1, disable_progbar=True)
    with pytest.raises(ValueError, match="discrete sample site 'z'"):
        mcmc.run(torch.zeros(2, 4))
