"""Losses refuse an energy whose log-normalizer depends on a latent variable."""

import copy
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    Importance,
    RenyiELBO,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.optim import Adam
from torch import nn

import pyro_ebm.pyro as ebm

X = torch.randn(50)
TRAINING = ebm.EnergyDiscrepancy(variance=1.0)
STOCK = [
    Trace_ELBO(),
    Trace_ELBO(num_particles=2, vectorize_particles=True),
    TraceMeanField_ELBO(),
    TraceGraph_ELBO(),
    RenyiELBO(num_particles=2),
]


def precision_of_energy(x, **options):
    w = pyro.sample("w", dist.Gamma(2.0, 0.5))
    with pyro.plate("data", len(x)):
        energy = lambda v: 0.5 * w * v**2  # noqa: E731
        pyro.sample("x", ebm.EnergyBased(energy, event_shape=(), **options), obs=x)


def mean_of_base(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", ebm.EnergyBased(lambda v: 0.1 * v**4, dist.Normal(w, 1.0)), obs=x)


def context(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    base, options = dist.Normal(0.0, 1.0), {"context": w, "context_batch_ndims": 0}
    with pyro.plate("data", len(x)):
        pyro.sample("x", ebm.EnergyBased(lambda v, c: c * v, base, **options), obs=x)


class Quadratic(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self._parameters["w"] = weight

    def forward(self, v):
        return 0.5 * self._parameters["w"] * v**2


def lifted(x):
    lift = poutine.lift(pyro.module, prior={"w": dist.LogNormal(0.0, 1.0)})
    energy = lift("net", Quadratic(nn.Parameter(torch.tensor(1.0))), update_module_params=True)
    with pyro.plate("data", len(x)):
        pyro.sample("x", ebm.EnergyBased(energy, dist.Normal(0.0, 1.0)), obs=x)


def step(model, elbo, guide=AutoNormal):
    return SVI(model, guide(model), Adam({"lr": 1e-3}), elbo).step(X)


@pytest.mark.parametrize("elbo", STOCK, ids=lambda elbo: type(elbo).__name__)
@pytest.mark.parametrize("model", [mean_of_base, context, lifted])
def test_stock_elbos_refuse(model, elbo):
    with pytest.raises(ValueError, match=r"latent variable '(net\$\$\$)?w': .* doubly intractable"):
        step(model, elbo)


@pytest.mark.parametrize("guide", [AutoNormal, AutoMultivariateNormal])
def test_a_precision_is_refused(guide):
    with pytest.raises(ValueError, match="latent variable 'w': .* doubly intractable"):
        step(precision_of_energy, Trace_ELBO(), guide)


def test_nuts_refuses_lifted_weights():
    with pytest.raises(ValueError, match="doubly intractable"):
        MCMC(NUTS(lifted), 1, 0, disable_progbar=True).run(X)


@pytest.mark.parametrize("change", [lambda w: w, torch.exp])
def test_weights_made_of_parameters_are_held(change):
    weight = pyro.param("w", torch.tensor(2.0), constraint=dist.constraints.positive)
    energy, x = Quadratic(change(weight)), torch.tensor(3.0, requires_grad=True)
    log_prob = ebm.EnergyBased(energy, event_shape=()).log_prob(x)
    (slope,) = torch.autograd.grad(log_prob, x, create_graph=True)
    torch.testing.assert_close(slope, -3.0 * change(weight))
    (slope + log_prob).backward()
    assert weight.unconstrained().grad is None


def hidden(x, where):
    """A latent without a gradient behind an energy, or the number that it makes."""
    k = pyro.sample("k", dist.Bernoulli(0.5))
    rate, base, options = 4.0 * k, dist.Normal(0.0, 1.0), {}
    energy = {
        "energy": lambda v: 4.0 * k * v**2,
        "number": lambda v: rate * v**2,
        "context": lambda v, c: c * v**2,
        "base": lambda v: v**2,
        "nowhere": lambda v: v**2,
    }[where]
    if where == "context":
        options = {"context": k, "context_batch_ndims": 0}
    if where == "base":
        base = dist.Normal(0.0, 1.0 + k)
    with pyro.plate("data", len(x)):
        pyro.sample("x", ebm.EnergyBased(energy, base, **options), obs=x)


def score_guide(x, where):
    q = pyro.param("q", torch.tensor(0.5), constraint=dist.constraints.unit_interval)
    pyro.sample("k", dist.Bernoulli(q))


REFUSED = [
    *((ebm.EnergyELBO(TRAINING), where) for where in ("energy", "number", "context", "base")),
    *((TraceGraph_ELBO(), where) for where in ("energy", "number", "context", "base")),
    *((Trace_ELBO(), where) for where in ("energy", "context")),
]


@pytest.mark.parametrize(("loss", "where"), REFUSED, ids=lambda it: getattr(it, "__class__", it))
def test_latents_without_gradients(loss, where):
    svi = SVI(hidden, score_guide, Adam({"lr": 1e-3}), loss)
    with pytest.raises(ValueError, match="latent variable 'k': .* doubly intractable"):
        svi.step(X, where)
    assert math.isfinite(svi.step(X, "nowhere"))


def weighed(x, how, **options):
    """A scale or mask of an energy that is learned, or depends on a latent."""
    if how == "parameter":
        weight = pyro.param("weight", torch.tensor(0.5))
    else:
        weight = pyro.sample("weight", dist.LogNormal(0.0, 1.0))
    law = ebm.EnergyBased(lambda v: v**2, dist.Normal(0.0, 1.0), **options)
    around = poutine.mask(mask=weight > 0.1) if how == "mask" else poutine.scale(scale=weight)
    with around, pyro.plate("data", len(x)):
        pyro.sample("x", law, obs=x)


@pytest.mark.parametrize(
    "loss", [*STOCK, ebm.EnergyELBO(TRAINING)], ids=lambda it: type(it).__name__
)
@pytest.mark.parametrize("how", ["parameter", "latent"])
def test_weights_with_gradients(loss, how):
    svi = SVI(weighed, AutoNormal(weighed), Adam({"lr": 1e-3}), loss)
    with pytest.raises(ValueError, match="Expected a constant scale of"):
        svi.step(X, how)
    assert math.isfinite(svi.step(X, how, log_normalizer=lambda: -0.5 * math.log(3.0)))


def test_energies_from_outside_of_a_scale():
    """Made before the handler and in no plate: seen by ``EnergyELBO``, which names the site."""
    law = ebm.EnergyBased(lambda v: v**2, dist.Normal(0.0, 1.0))

    def model():
        with poutine.scale(scale=pyro.sample("weight", dist.LogNormal(0.0, 1.0))):
            pyro.sample("x", law, obs=torch.tensor(0.3))

    svi = SVI(model, AutoNormal(model), Adam({"lr": 1e-3}), ebm.EnergyELBO(TRAINING))
    with pytest.raises(ValueError, match="a constant scale of site 'x'"):
        svi.step()


def test_masks_of_latents_are_listed():
    (issue,) = ebm.check_model(weighed)(X, "mask")
    assert issue.kind == "doubly_intractable"


def test_a_conditional_without_its_constant_is_refused_under_a_scale():
    parts = {"theta": dist.Normal(0.0, 1.0), "x": dist.Normal(0.0, 1.0)}
    joint = ebm.EnergyBased(lambda theta, x: (x - theta) ** 2 / 2, ebm.Joint(**parts))

    def model():
        weight = pyro.sample("weight", dist.LogNormal(0.0, 1.0))
        with poutine.scale(scale=weight), pyro.plate("data", len(X)):
            pyro.sample("x", joint.conditional(theta=torch.tensor(0.5)), obs=X)

    with pytest.raises(ValueError, match="Expected a constant scale of"):
        SVI(model, AutoNormal(model), Adam({"lr": 1e-3}), Trace_ELBO()).step()


def test_nuts_refuses_weights_of_latents():
    mcmc = MCMC(NUTS(weighed), num_samples=1, warmup_steps=0, disable_progbar=True)
    with pytest.raises(ValueError, match="Expected a constant scale of"):
        mcmc.run(X, "latent")


def test_importance_sampling_refuses():
    with pytest.raises(ValueError, match="latent variable 'w': .* doubly intractable"):
        Importance(precision_of_energy, num_samples=2).run(X)


def test_what_depends_on_no_latent_can_be_weighed():
    def conditional():
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
        parts = {"theta": dist.Normal(0.0, 1.0), "x": dist.Normal(0.0, 1.0)}
        joint = ebm.EnergyBased(lambda theta, x: (x - theta) ** 2 / 2, ebm.Joint(**parts))
        with pyro.plate("data", len(X)):
            pyro.sample("x", joint.conditional(theta=theta), obs=X)

    def views():
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        energy = ebm.EnergyBased(lambda v: z.ndim * v**4, event_shape=())
        pyro.factor("weight", energy.log_prob(z[0]))
        pyro.sample("x", energy, obs=z[1])

    for model in (conditional, views):
        run = Importance(model, num_samples=2).run()
        assert math.isfinite(run.get_log_normalizer())


def test_a_prior_that_cannot_be_sampled():
    def model(x):
        pyro.sample("loc", dist.ImproperUniform(dist.constraints.real, (), ()))
        weight = pyro.param("weight", torch.tensor(1.0))
        with pyro.plate("data", len(x)):
            base = dist.Normal(0.0, 1.0)
            pyro.sample("x", ebm.EnergyBased(lambda v: weight * v**4, base), obs=x)

    def guide(_):
        pyro.sample("loc", dist.Normal(0.0, 1.0))

    assert math.isfinite(SVI(model, guide, Adam({"lr": 1e-3}), ebm.EnergyELBO(TRAINING)).step(X))


def test_a_value_is_no_other_latent():
    def model():
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.factor("weight", ebm.EnergyBased(lambda v: v**2, event_shape=()).log_prob(k))

    loss = Trace_ELBO().loss(model, lambda: pyro.sample("k", dist.Bernoulli(0.5)))
    assert math.isfinite(loss)


def test_what_is_sound_passes():
    def known(x):
        precision_of_energy(x, log_normalizer=lambda: torch.tensor(0.0))

    def prior(x):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        weight = pyro.param("weight", torch.tensor(1.0))
        with pyro.plate("data", len(x)):
            base = dist.Normal(0.0, 1.0)
            z = pyro.sample("z", ebm.EnergyBased(lambda v: weight * v**4, base))
            pyro.sample("x", dist.Normal(z * scale, 1.0), obs=x)

    def transformed(x):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        noise = ebm.EnergyBased(lambda v: v**4, dist.Normal(0.0, 1.0))
        move = dist.transforms.AffineTransform(0.0, scale)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.TransformedDistribution(noise, [move]), obs=x)

    training = ebm.EnergyELBO(ebm.EnergyDiscrepancy(variance=1.0))
    for model, loss in ((known, Trace_ELBO()), (prior, training), (transformed, Trace_ELBO())):
        assert math.isfinite(step(model, loss))


def test_a_distribution_of_a_run_can_be_copied():
    kept = []

    def model(x):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        kept.append(ebm.EnergyBased(lambda v: v**4, dist.Normal(0.0, 1.0)))
        pyro.sample("x", dist.Normal(0.0, scale).expand([len(x)]).to_event(1), obs=x)

    step(model, Trace_ELBO())
    torch.testing.assert_close(copy.deepcopy(kept[-1]).log_prob(X), kept[-1].log_prob(X))
