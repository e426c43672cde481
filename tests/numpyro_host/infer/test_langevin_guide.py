import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from helpers import linear_gaussian as truth
from helpers.hosts.numpyro import empty_guide
from helpers.linear_gaussian_numpyro import Toy, run
from jax import random
from numpyro import handlers
from numpyro.infer import SVI, Predictive, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

import pyro_ebm.numpyro as ebm

VARIANCE = truth.SCALE**2
PARAMS = {"a": jnp.array(truth.log_weight(truth.PRECISION))}
KEY = random.key(0)


def trace_of(guide, key=KEY, params=PARAMS, args=()):
    """Trace of a guide at given parameters."""
    return handlers.trace(handlers.substitute(handlers.seed(guide, key), params)).get_trace(*args)


# --- the toy with a known answer ---


def fit(layout, elbo=None, num_steps=150, **options):
    """Results of a prior that starts at twice the best precision."""
    return run(
        elbo or Trace_ELBO(),
        layout,
        num_steps=num_steps,
        start=truth.log_weight(2 * truth.PRECISION),
        learning_rate=0.05,
        num_averaged=75,
        num_normalizer_samples=0,
        **options,
    )


def test_it_recovers_the_best_prior():
    def guide(toy):
        return ebm.LangevinGuide(toy.model, ebm.MALA(0.8), num_steps=5)

    precision = fit("subsample", Trace_ELBO(num_particles=4), make_guide=guide)["precision"]
    assert precision == pytest.approx(truth.PRECISION, rel=0.05)


def test_an_amortized_guide_learns_the_posterior():
    def guide(toy):
        return ebm.LangevinGuide(toy.model, ebm.MALA(0.8), num_steps=2, init=toy.guide)

    results = fit("plate", make_guide=guide, num_steps=300)
    assert results["precision"] == pytest.approx(truth.PRECISION, rel=0.05)
    assert results["slope"] == pytest.approx(truth.SLOPE, abs=0.06)
    assert results["scale"] == pytest.approx(truth.SCALE, abs=0.06)


# --- draws ---


@pytest.mark.parametrize(
    ("sampler", "variance"),
    [(ebm.MALA(0.8), VARIANCE), (ebm.Langevin(0.4), VARIANCE / (1 - 0.4 / (2 * VARIANCE)))],
)
def test_draws_are_of_the_posterior_with_the_known_bias(sampler, variance):
    toy = Toy("plate")
    guide = ebm.LangevinGuide(toy.model, sampler, num_steps=30)
    # Under jit, with the parameters that outer handlers give.
    z = jax.jit(lambda key, params: trace_of(guide, key, params)["z"]["value"])(KEY, PARAMS)
    residuals = z - truth.SLOPE * toy.x
    assert residuals.mean() == pytest.approx(0.0, abs=4 * math.sqrt(variance / 512))
    assert residuals.var() == pytest.approx(variance, rel=4 * math.sqrt(2 / 512))


def test_sites_are_constants_in_the_plates_of_the_model():
    toy = Toy("subsample")
    guide = ebm.LangevinGuide(toy.model, ebm.MALA(0.8))

    @jax.jit
    def evaluate():
        trace = trace_of(guide)
        site = trace["z"]
        assert set(trace) == {"a", "data", "z"}
        assert [frame.name for frame in site["cond_indep_stack"]] == ["data"]
        model = handlers.replay(handlers.seed(toy.model, 1), trace)
        observed = handlers.trace(model).get_trace()["x"]["value"]
        z, rows = site["value"], toy.x[trace["data"]["value"]]
        return z, rows, observed, site["fn"].log_prob(z)

    z, rows, observed, log_density = evaluate()
    assert np.abs(log_density).max() == 0
    # The chains ran on the model's own subsample.
    np.testing.assert_array_equal(observed, rows)
    error = 4 * math.sqrt(2 / truth.SUBSAMPLE)
    assert np.var(z - truth.SLOPE * rows) == pytest.approx(VARIANCE, rel=error)


def test_predictive_draws_from_it():
    toy = Toy("plate")
    guide = ebm.LangevinGuide(toy.model, ebm.MALA(0.8))
    z = Predictive(guide, params=PARAMS, num_samples=3)(KEY)["z"]
    assert z.shape == (3, truth.NUM_DATA)
    correlations = np.corrcoef(z - truth.SLOPE * toy.x) - np.eye(3)
    assert np.abs(correlations).max() < 4 / math.sqrt(truth.NUM_DATA)


def test_latents_have_plates_of_their_own():
    def model(x):
        scale = numpyro.sample("scale", dist.HalfNormal(2.0))
        with numpyro.plate("data", len(x), dim=-2):
            with numpyro.plate("features", x.shape[1], dim=-1):
                z = numpyro.sample("z", dist.Normal(0.0, scale))
                numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    @jax.jit
    def evaluate(x):
        guide = ebm.LangevinGuide(model, ebm.MALA(0.05), num_steps=3)
        guide_trace = trace_of(guide, args=(x,))
        trace = handlers.trace(handlers.replay(handlers.seed(model, 1), guide_trace)).get_trace(x)
        for name in ("scale", "z"):
            assert guide_trace[name]["fn"].batch_shape == trace[name]["fn"].batch_shape
        return guide_trace["z"]["value"], guide_trace["scale"]["value"]

    z, scale = evaluate(jnp.ones((4, 3)))
    assert z.shape == (4, 3)
    assert (scale > 0).all()


# --- stock ELBOs ---

STOCK = {"TraceMeanField": TraceMeanField_ELBO, "TraceGraph": TraceGraph_ELBO}


def decoder_model(x):
    weight = numpyro.param("weight", 1.0)
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(weight * z, 1.0), obs=x)


def amortized(x):
    slope = numpyro.param("slope", 0.2)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(slope * x, 1.0))


@pytest.mark.parametrize("name", STOCK)
def test_stock_elbos_report_and_follow_the_joint_density(name):
    x = random.normal(KEY, (50,))
    guide = ebm.LangevinGuide(decoder_model, ebm.MALA(0.3), num_steps=2, init=amortized)

    @jax.jit
    def evaluate(params):
        loss = jax.value_and_grad(
            lambda params: STOCK[name]().loss(KEY, params, decoder_model, guide, x)
        )
        trace = trace_of(guide, random.split(KEY)[1], params, (x,))
        z = trace["z"]["value"]
        return loss(params), z, trace["z"]["fn"].log_prob(z)

    (value, gradients), z, log_density = evaluate({"weight": 1.0, "slope": 0.2})
    assert np.abs(log_density).max() == 0
    standard = dist.Normal(0.0, 1.0)
    log_joint = standard.log_prob(z) + standard.log_prob(x - z)
    np.testing.assert_allclose(value, -log_joint.sum(), rtol=1e-5)
    # The model's parameters go up log p(x, z); those of the amortized guide go up log q(z).
    np.testing.assert_allclose(gradients["weight"], -((x - z) * z).sum(), rtol=1e-4)
    np.testing.assert_allclose(gradients["slope"], -((z - 0.2 * x) * x).sum(), rtol=1e-4)


def test_new_parameters_cost_no_compilation():
    traced = []

    def model(x):
        traced.append(1)
        decoder_model(x)

    x = random.normal(KEY, (50,))
    guide = ebm.LangevinGuide(model, ebm.MALA(0.3), num_steps=2)
    svi = SVI(model, guide, optax.adam(0.1), Trace_ELBO())
    update = jax.jit(svi.update)
    state, _ = update(jax.jit(svi.init)(KEY, x), x)
    before = len(traced)
    for _ in range(3):
        state, _ = update(state, x)
    assert len(traced) == before
    assert svi.get_params(state)["weight"] != 1.0


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
        trace_of(ebm.LangevinGuide(decoder_model, **options), args=(random.normal(KEY, (5,)),))


def test_a_random_key_is_needed():
    with pytest.raises(ValueError, match="a random key from a seed handler, got none"):
        handlers.trace(ebm.LangevinGuide(decoder_model)).get_trace(jnp.ones(5))
