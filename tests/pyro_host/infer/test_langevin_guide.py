import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from helpers import linear_gaussian as truth
from helpers.linear_gaussian_pyro import Toy
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


def toy_at_the_truth(layout="plate"):
    toy = Toy(layout)
    toy.energy.a.data.fill_(math.log(truth.PRECISION - 1 / 16))
    return toy


def rows_of(trace, toy):
    """The data that a run of a guide drew chains for."""
    index = trace.nodes["data"]["value"]
    return toy.x[index]


# --- the toy with a known answer ---


def fit(layout, guide, elbo, num_steps=100):
    """Precision of the fitted prior, which starts at twice the truth."""
    toy = Toy(layout)
    toy.energy.a.data.fill_(math.log(2 * truth.PRECISION - 1 / 16))
    objective = ebm.EnergyDiscrepancy(variance=truth.VARIANCE, num_negatives=16)
    loss = ebm.EnergyELBO(objective, elbo, num_normalizer_samples=0)
    svi = SVI(toy.model, guide(toy), Adam({"lr": 0.05}), loss)
    precisions = []
    for _ in range(num_steps):
        svi.step()
        precisions.append(1 / 16 + toy.energy.a.detach().exp().item())
    return sum(precisions[-50:]) / 50


@pytest.mark.parametrize(
    ("layout", "elbo"),
    [
        ("plate", Trace_ELBO()),
        ("subsample", Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1)),
    ],
)
def test_it_recovers_the_best_prior(layout, elbo):
    precision = fit(layout, lambda toy: ebm.LangevinGuide(toy.model, ebm.MALA(0.8, 5)), elbo)
    assert precision == pytest.approx(truth.PRECISION, rel=0.05)


def test_an_amortised_guide_to_start_from_learns_the_posterior():
    def guide(toy):
        return ebm.LangevinGuide(toy.model, ebm.MALA(0.8, 2), init=toy.guide)

    assert fit("subsample", guide, Trace_ELBO(), 150) == pytest.approx(truth.PRECISION, rel=0.05)
    assert pyro.param("slope").item() == pytest.approx(truth.SLOPE, abs=0.06)
    assert pyro.param("scale").item() == pytest.approx(truth.SCALE, abs=0.06)


# --- what it emits ---


@pytest.mark.parametrize(
    ("sampler", "variance"),
    [
        (ebm.MALA(0.8, num_steps=30), VARIANCE),
        (ebm.Langevin(0.4, num_steps=30), VARIANCE / (1 - 0.4 / (2 * VARIANCE))),
    ],
)
def test_draws_are_of_the_posterior_and_langevin_has_its_known_bias(sampler, variance):
    toy = toy_at_the_truth()
    residuals = ebm.LangevinGuide(toy.model, sampler)()["z"] - truth.SLOPE * toy.x
    assert residuals.mean().item() == pytest.approx(0.0, abs=4 * math.sqrt(variance / 512))
    assert residuals.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / 512))


def test_sites_are_fixed_values_in_the_plates_of_the_model():
    toy = toy_at_the_truth("subsample")
    guide = ebm.LangevinGuide(toy.model, ebm.MALA(0.8, num_steps=20))
    trace = poutine.trace(guide).get_trace()
    trace.compute_log_prob()
    site = trace.nodes["z"]
    assert not site["value"].requires_grad
    assert site["log_prob"].abs().max() == 0
    assert [frame.name for frame in site["cond_indep_stack"]] == ["data"]
    assert set(trace.nodes) == {"energy$$$a", "data", "z", "_INPUT", "_RETURN"}
    model_trace = poutine.trace(poutine.replay(toy.model, trace=trace)).get_trace()
    # The chains ran on the data that the model meets.
    assert torch.equal(model_trace.nodes["x"]["value"], rows_of(trace, toy))
    residuals = site["value"] - truth.SLOPE * rows_of(trace, toy)
    assert residuals.var().item() == pytest.approx(VARIANCE, rel=4 * math.sqrt(2 / 128))


def test_particles_are_independent_chains():
    toy = toy_at_the_truth()
    guide = ebm.LangevinGuide(toy.model, ebm.MALA(0.8, num_steps=20))
    with pyro.plate("particles", 3, dim=-2):
        draws = guide()["z"]
    residuals = draws - truth.SLOPE * toy.x
    assert draws.shape == (3, truth.NUM_DATA)
    assert residuals.T.cov().diag().mean() > 0.5 * VARIANCE
    correlations = residuals.corrcoef() - torch.eye(3)
    assert correlations.abs().max() < 4 / math.sqrt(truth.NUM_DATA)


def test_predictive_draws_from_it():
    toy = toy_at_the_truth()
    guide = ebm.LangevinGuide(toy.model, ebm.MALA(0.8, num_steps=20))
    for parallel in (True, False):
        predictive = Predictive(toy.model, guide=guide, num_samples=5, parallel=parallel)
        replicates = predictive()
        assert replicates["x"].shape == (5, truth.NUM_DATA)


@pytest.mark.parametrize("in_plate", [True, False])
def test_several_latents_with_plates_of_their_own(in_plate):
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
    guide = ebm.LangevinGuide(model, ebm.MALA(0.05, num_steps=3))
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


def amortised(x):
    slope = pyro.param("slope", torch.tensor(0.2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x, 1.0))


@pytest.mark.parametrize("name", STOCK)
def test_stock_elbos_report_the_joint_density_and_follow_its_gradient(name):
    x = torch.randn(50)
    guide = ebm.LangevinGuide(decoder_model, ebm.MALA(0.3, num_steps=2), init=amortised)
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
    # The model's parameters go up log p(x, z); those of the amortised guide go up log q(z).
    torch.testing.assert_close(gradients["weight"], -((x - weight * z) * z).sum())
    torch.testing.assert_close(gradients["slope"], -((z - slope * x) * x).sum())


# --- what it refuses ---


def test_what_it_refuses():
    x = torch.randn(5)
    with pytest.raises(TypeError, match="`sampler` to have init and step, got float"):
        ebm.LangevinGuide(decoder_model, 0.1)
    with pytest.raises(ValueError, match=r"finite draws of \['z'\], .* lower its `step_size`"):
        ebm.LangevinGuide(decoder_model, ebm.Langevin(1e3, num_steps=50))(x)
    with pytest.raises(ValueError, match="`init` to have a density at site 'z', got none"):
        ebm.LangevinGuide(decoder_model, init=lambda x: None)(x)
    point = ebm.LangevinGuide(decoder_model)
    with pytest.raises(ValueError, match="`init` to have a density at site 'z', got a Delta"):
        ebm.LangevinGuide(decoder_model, init=point)(x)
