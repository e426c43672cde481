import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import linear_gaussian as truth
from helpers.hosts.pyro import empty_guide
from helpers.linear_gaussian_pyro import Toy, run
from pyro import poutine
from pyro.infer import (
    SVI,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.optim import Adam

import pyro_ebm.pyro as ebm

VARIANCE = truth.SCALE**2


def optimal_toy(layout="plate"):
    toy = Toy(layout)
    toy.energy.a.data.fill_(truth.log_weight(truth.PRECISION))
    return toy


def rows_of(trace, toy):
    """The data that a run of a guide drew chains for."""
    index = trace.nodes["data"]["value"]
    return toy.x[index]


# --- the toy with a known answer ---


def fit(layout, elbo=None, num_steps=100, **options):
    """Results of a prior that starts at twice the best precision."""
    return run(
        elbo or Trace_ELBO(),
        layout,
        num_steps=num_steps,
        start=truth.log_weight(2 * truth.PRECISION),
        learning_rate=0.05,
        num_averaged=50,
        num_normalizer_samples=0,
        **options,
    )


@pytest.mark.parametrize(
    ("layout", "elbo"),
    [
        ("plate", Trace_ELBO()),
        ("subsample", Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1)),
    ],
)
def test_it_recovers_the_best_prior(layout, elbo):
    def guide(toy):
        return ebm.LangevinGuide(toy.model, ebm.MALA(0.8), num_steps=5)

    precision = fit(layout, elbo, make_guide=guide)["precision"]
    assert precision == pytest.approx(truth.PRECISION, rel=0.05)


def test_an_amortized_guide_learns_the_posterior():
    def guide(toy):
        return ebm.LangevinGuide(toy.model, ebm.MALA(0.8), num_steps=2, init=toy.guide)

    results = fit("subsample", make_guide=guide, num_steps=150)
    assert results["precision"] == pytest.approx(truth.PRECISION, rel=0.05)
    assert results["slope"] == pytest.approx(truth.SLOPE, abs=0.06)
    assert results["scale"] == pytest.approx(truth.SCALE, abs=0.06)


# --- draws ---


@pytest.mark.parametrize(
    ("sampler", "variance"),
    [(ebm.MALA(0.8), VARIANCE), (ebm.Langevin(0.4), VARIANCE / (1 - 0.4 / (2 * VARIANCE)))],
)
def test_draws_are_of_the_posterior_with_the_known_bias(sampler, variance):
    toy = optimal_toy()
    draws = ebm.LangevinGuide(toy.model, sampler, num_steps=30)()["z"]
    residuals = draws - truth.SLOPE * toy.x
    assert residuals.mean().item() == pytest.approx(0.0, abs=4 * math.sqrt(variance / 512))
    assert residuals.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / 512))


def test_sites_are_constants_in_the_plates_of_the_model():
    toy = optimal_toy("subsample")
    guide = ebm.LangevinGuide(toy.model, ebm.MALA(0.8))
    trace = poutine.trace(guide).get_trace()
    trace.compute_log_prob()
    site = trace.nodes["z"]
    assert not site["value"].requires_grad
    assert site["log_prob"].abs().max() == 0
    assert [frame.name for frame in site["cond_indep_stack"]] == ["data"]
    assert set(trace.nodes) == {"energy$$$a", "data", "z", "_INPUT", "_RETURN"}
    model_trace = poutine.trace(poutine.replay(toy.model, trace=trace)).get_trace()
    # The chains ran on the model's own subsample.
    assert torch.equal(model_trace.nodes["x"]["value"], rows_of(trace, toy))
    residuals = site["value"] - truth.SLOPE * rows_of(trace, toy)
    assert residuals.var().item() == pytest.approx(VARIANCE, rel=4 * math.sqrt(2 / 128))


def test_particles_are_independent_chains():
    toy = optimal_toy()
    guide = ebm.LangevinGuide(toy.model, ebm.MALA(0.8))
    with pyro.plate("particles", 3, dim=-2):
        draws = guide()["z"]
    residuals = draws - truth.SLOPE * toy.x
    assert draws.shape == (3, truth.NUM_DATA)
    assert residuals.T.cov().diag().mean() > 0.5 * VARIANCE
    correlations = residuals.corrcoef() - torch.eye(3)
    assert correlations.abs().max() < 4 / math.sqrt(truth.NUM_DATA)


@pytest.mark.parametrize("parallel", [True, False])
def test_predictive_draws_from_it(parallel):
    toy = optimal_toy()
    guide = ebm.LangevinGuide(toy.model, ebm.MALA(0.8))
    predictive = Predictive(toy.model, guide=guide, num_samples=5, parallel=parallel)
    assert predictive()["x"].shape == (5, truth.NUM_DATA)


@pytest.mark.parametrize("in_plate", [True, False])
def test_latents_have_plates_of_their_own(in_plate):
    def model(x):
        scale = None if in_plate else pyro.sample("scale", dist.Gamma(2.0, 2.0))
        with pyro.plate("data", len(x), dim=-2):
            scale = pyro.sample("scale", dist.Gamma(2.0, 2.0)) if in_plate else scale
            with pyro.plate("features", x.shape[1], dim=-1):
                z = pyro.sample("z", dist.Normal(0.0, scale))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        for group in pyro.plate("groups", 2):
            pyro.sample(f"w_{group}", dist.Normal(0.0, 1.0))

    x = torch.randn(4, 3)
    guide = ebm.LangevinGuide(model, ebm.MALA(0.05), num_steps=3)
    guide_trace = poutine.trace(guide).get_trace(x)
    trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
    assert guide_trace.nodes["z"]["value"].shape == (4, 3)
    assert (guide_trace.nodes["scale"]["value"] > 0).all()
    for name in ("scale", "z", "w_0", "w_1"):
        assert guide_trace.nodes[name]["fn"].batch_shape == trace.nodes[name]["fn"].batch_shape
    assert SVI(model, guide, Adam({"lr": 0.1}), Trace_ELBO()).evaluate_loss(x) > 0


# --- stock ELBOs ---

STOCK = {
    "Trace": lambda: Trace_ELBO(),
    "TraceMeanField": lambda: TraceMeanField_ELBO(),
    "TraceGraph": lambda: TraceGraph_ELBO(),
    "TraceEnum": lambda: TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False),
}


def decoder_model(x):
    weight = pyro.param("weight", torch.tensor(1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(weight * z, 1.0), obs=x)


def amortized(x):
    slope = pyro.param("slope", torch.tensor(0.2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x, 1.0))


@pytest.mark.parametrize("name", STOCK)
def test_stock_elbos_report_and_follow_the_joint_density(name):
    x = torch.randn(50)
    guide = ebm.LangevinGuide(decoder_model, ebm.MALA(0.3), num_steps=2, init=amortized)
    pyro.set_rng_seed(3)
    value = STOCK[name]().loss_and_grads(decoder_model, guide, x)
    weight, slope = (pyro.param(name).detach() for name in ("weight", "slope"))
    gradients = {name: pyro.param(name).unconstrained().grad for name in ("weight", "slope")}
    pyro.set_rng_seed(3)
    trace = poutine.trace(guide).get_trace(x)
    trace.compute_log_prob()
    assert trace.nodes["z$init"]["log_prob"].abs().max() == 0
    z = trace.nodes["z"]["value"]
    standard = dist.Normal(0.0, 1.0)
    log_joint = standard.log_prob(z) + standard.log_prob(x - weight * z)
    assert value == pytest.approx(-log_joint.sum().item(), rel=1e-5)
    # The model's parameters go up log p(x, z); those of the amortized guide go up log q(z).
    torch.testing.assert_close(gradients["weight"], -((x - weight * z) * z).sum())
    torch.testing.assert_close(gradients["slope"], -((z - slope * x) * x).sum())


# --- refusals ---

POINT = ebm.LangevinGuide(decoder_model)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sampler": 0.1}, TypeError, "`sampler` to have init and step, .* got float"),
        ({"num_steps": 0}, ValueError, "`num_steps` to be an integer of at least 1, got 0"),
        ({"sampler": ebm.Langevin(1e3)}, ValueError, r"finite draws of \['z'\], .* `step_size`"),
        ({"init": empty_guide}, ValueError, "`init` to have a density at site 'z', got none"),
        ({"init": POINT}, ValueError, "`init` to have a density at site 'z', got a Delta"),
    ],
    ids=["sampler", "steps", "diverged", "missing", "point"],
)
def test_refusals(options, error, message):
    with pytest.raises(error, match=message):
        ebm.LangevinGuide(decoder_model, **options)(torch.randn(5))
