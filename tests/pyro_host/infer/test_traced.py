"""Graphs of torch.jit: the numbers of the run that is not traced."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers.hosts.pyro import MLP
from pyro import infer
from pyro.infer import MCMC, NUTS

import pyro_ebm.pyro as ebm

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
X = torch.linspace(-1.0, 1.5, 16).reshape(8, 2)


@pytest.fixture
def model():
    energy = MLP().eval()

    def model(x):
        pyro.module("energy", energy)
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
            z = pyro.sample("z", ebm.EnergyBased(energy, base))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    return model


def guide(x):
    shift = pyro.param("shift", torch.zeros(2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x + shift, 0.5).to_event(1))


def steps(loss, model):
    """Losses of some steps, and gradients of all of them, from the same draws in each."""
    pyro.clear_param_store()
    losses = []
    for _ in range(3):
        pyro.set_rng_seed(0)
        losses.append(loss.loss_and_grads(model, guide, X))
        found = {name: x.grad for name, x in pyro.get_param_store().named_parameters()}
        gradients = {name: gradient for name, gradient in found.items() if gradient is not None}
        if len(losses) == 1:  # In its first step a traced ELBO draws more.
            for gradient in gradients.values():
                gradient.zero_()
    return losses[1:], gradients


@pytest.mark.parametrize("kind", ["Trace", "TraceEnum", "TraceGraph", "TraceMeanField"])
def test_energy_elbo(model, kind):
    elbos = (getattr(infer, f"{jit}{kind}_ELBO") for jit in ("", "Jit"))
    objective = ebm.EnergyDiscrepancy(variance=1.0)
    options = {"max_plate_nesting": 1, "strict_enumeration_warning": False}
    (plain, expected), (traced, gradients) = (
        steps(ebm.EnergyELBO(objective, elbo(**options)), model) for elbo in elbos
    )
    assert traced == plain
    torch.testing.assert_close(gradients, expected)


@pytest.mark.parametrize("kind", ["Trace", "TraceGraph"])
@pytest.mark.filterwarnings("ignore:Nothing trains")
def test_stock_elbo(model, kind):
    elbos = (getattr(infer, f"{jit}{kind}_ELBO") for jit in ("", "Jit"))
    (plain, expected), (traced, gradients) = (steps(elbo(), model) for elbo in elbos)
    assert traced == pytest.approx(plain, rel=1e-5)
    torch.testing.assert_close(gradients["shift"], expected["shift"], rtol=1e-4, atol=1e-4)


def test_nuts(model):
    draws = []
    for jit in (False, True):
        pyro.set_rng_seed(0)
        kernel = NUTS(model, jit_compile=jit, ignore_jit_warnings=True, max_tree_depth=4)
        mcmc = MCMC(kernel, num_samples=5, warmup_steps=5, disable_progbar=True)
        mcmc.run(X)
        draws.append(mcmc.get_samples()["z"])
    torch.testing.assert_close(draws[1], draws[0], rtol=1e-3, atol=1e-3)
