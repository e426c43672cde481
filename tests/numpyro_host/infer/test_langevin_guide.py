import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from helpers import linear_gaussian as truth
from helpers.linear_gaussian_numpyro import SUBSAMPLE, Toy
from jax import lax, random
from numpyro import handlers
from numpyro.infer import SVI, Predictive, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

import pyro_ebm.numpyro as ebm

VARIANCE = truth.SCALE**2
PARAMS = {"a": jnp.log(truth.PRECISION - 1 / 16)}
KEY = random.key(0)


def run(guide, key=KEY, params=PARAMS, args=()):
    """Trace of a guide at given parameters."""
    return handlers.trace(handlers.substitute(handlers.seed(guide, key), params)).get_trace(*args)


# --- the toy with a known answer ---


def fit(layout, guide, elbo, num_steps=150):
    """Precision of the fitted prior, which starts at twice the truth; and all parameters."""
    toy = Toy(layout)
    objective = ebm.EnergyDiscrepancy(variance=truth.VARIANCE, num_negatives=16)
    loss = ebm.EnergyELBO(objective, elbo, num_normalizer_samples=0)
    svi = SVI(toy.model, guide(toy), optax.adam(0.05), loss)

    def step(state, _):
        state, _ = svi.update(state)
        return state, svi.get_params(state)["a"]

    @jax.jit
    def train(key):
        start = {"a": jnp.log(2 * truth.PRECISION - 1 / 16)}
        return lax.scan(step, svi.init(key, init_params=start), length=num_steps)

    state, path = train(KEY)
    return float(jnp.mean(1 / 16 + jnp.exp(path[-75:]))), svi.get_params(state)


def test_it_recovers_the_best_prior():
    def guide(toy):
        return ebm.LangevinGuide(toy.model, ebm.MALA(0.8, 5))

    precision, _ = fit("subsample", guide, Trace_ELBO(num_particles=4))
    assert precision == pytest.approx(truth.PRECISION, rel=0.05)


def test_an_amortised_guide_to_start_from_learns_the_posterior():
    def guide(toy):
        return ebm.LangevinGuide(toy.model, ebm.MALA(0.8, 2), init=toy.guide)

    precision, params = fit("plate", guide, Trace_ELBO(), num_steps=300)
    assert precision == pytest.approx(truth.PRECISION, rel=0.05)
    assert float(params["slope"]) == pytest.approx(truth.SLOPE, abs=0.06)
    assert float(params["scale"]) == pytest.approx(truth.SCALE, abs=0.06)


# --- what it emits ---


@pytest.mark.parametrize(
    ("sampler", "variance"),
    [
        (ebm.MALA(0.8, num_steps=30), VARIANCE),
        (ebm.Langevin(0.4, num_steps=30), VARIANCE / (1 - 0.4 / (2 * VARIANCE))),
    ],
)
def test_draws_are_of_the_posterior_and_langevin_has_its_known_bias(sampler, variance):
    toy = Toy("plate")
    guide = ebm.LangevinGuide(toy.model, sampler)
    # Under jit, with the parameters that handlers outside give.
    z = jax.jit(lambda key, params: run(guide, key, params)["z"]["value"])(KEY, PARAMS)
    residuals = z - truth.SLOPE * toy.x
    assert residuals.mean() == pytest.approx(0.0, abs=4 * math.sqrt(variance / 512))
    assert residuals.var() == pytest.approx(variance, rel=4 * math.sqrt(2 / 512))


def test_sites_are_fixed_values_in_the_plates_of_the_model():
    toy = Toy("subsample")
    guide = ebm.LangevinGuide(toy.model, ebm.MALA(0.8, num_steps=20))

    @jax.jit
    def evaluate():
        trace = run(guide)
        site = trace["z"]
        assert set(trace) == {"a", "data", "z"}
        assert [frame.name for frame in site["cond_indep_stack"]] == ["data"]
        model = handlers.replay(handlers.seed(toy.model, 1), trace)
        observed = handlers.trace(model).get_trace()["x"]["value"]
        z, rows = site["value"], toy.x[trace["data"]["value"]]
        return z, rows, observed, site["fn"].log_prob(z)

    z, rows, observed, log_density = evaluate()
    assert np.abs(log_density).max() == 0
    # The chains ran on the data that the model meets.
    np.testing.assert_array_equal(observed, rows)
    assert np.var(z - truth.SLOPE * rows) == pytest.approx(
        VARIANCE, rel=4 * math.sqrt(2 / SUBSAMPLE)
    )


def test_predictive_draws_from_it():
    toy = Toy("plate")
    guide = ebm.LangevinGuide(toy.model, ebm.MALA(0.8, num_steps=20))
    z = Predictive(guide, params=PARAMS, num_samples=3)(KEY)["z"]
    assert z.shape == (3, truth.NUM_DATA)
    correlations = np.corrcoef(z - truth.SLOPE * toy.x) - np.eye(3)
    assert np.abs(correlations).max() < 4 / math.sqrt(truth.NUM_DATA)


def test_several_latents_with_plates_of_their_own():
    def model(x):
        scale = numpyro.sample("scale", dist.HalfNormal(2.0))
        with numpyro.plate("data", len(x), dim=-2):
            with numpyro.plate("features", x.shape[1], dim=-1):
                z = numpyro.sample("z", dist.Normal(0.0, scale))
                numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    @jax.jit
    def evaluate(x):
        guide = ebm.LangevinGuide(model, ebm.MALA(0.05, num_steps=3))
        guide_trace = run(guide, args=(x,))
        trace = handlers.trace(handlers.replay(handlers.seed(model, 1), guide_trace)).get_trace(x)
        for name in ("scale", "z"):
            assert guide_trace[name]["fn"].batch_shape == trace[name]["fn"].batch_shape
        return guide_trace["z"]["value"], guide_trace["scale"]["value"]

    z, scale = evaluate(jnp.ones((4, 3)))
    assert z.shape == (4, 3)
    assert (scale > 0).all()


# --- stock ELBOs ---

STOCK = {"TraceMeanField": TraceMeanField_ELBO, "TraceGraph": TraceGraph_ELBO}
DECODER_PARAMS = {"weight": 1.0, "slope": 0.2}


def decoder_model(x):
    weight = numpyro.param("weight", 1.0)
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(weight * z, 1.0), obs=x)


def amortised(x):
    slope = numpyro.param("slope", 0.2)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(slope * x, 1.0))


@pytest.mark.parametrize("name", STOCK)
def test_stock_elbos_report_the_joint_density_and_follow_its_gradient(name):
    x = random.normal(KEY, (50,))
    guide = ebm.LangevinGuide(decoder_model, ebm.MALA(0.3, num_steps=2), init=amortised)

    @jax.jit
    def evaluate(params):
        loss = jax.value_and_grad(
            lambda params: STOCK[name]().loss(KEY, params, decoder_model, guide, x)
        )
        trace = run(guide, random.split(KEY)[1], params, (x,))
        z = trace["z"]["value"]
        return loss(params), z, trace["z"]["fn"].log_prob(z)

    (value, gradients), z, log_density = evaluate(DECODER_PARAMS)
    assert np.abs(log_density).max() == 0
    standard = dist.Normal(0.0, 1.0)
    log_joint = standard.log_prob(z) + standard.log_prob(x - z)
    np.testing.assert_allclose(value, -log_joint.sum(), rtol=1e-5)
    # The model's parameters go up log p(x, z); those of the amortised guide go up log q(z).
    np.testing.assert_allclose(gradients["weight"], -((x - z) * z).sum(), rtol=1e-4)
    np.testing.assert_allclose(gradients["slope"], -((z - 0.2 * x) * x).sum(), rtol=1e-4)


def test_new_parameters_cost_no_compilation():
    traced = []

    def model(x):
        traced.append(1)
        decoder_model(x)

    x = random.normal(KEY, (50,))
    guide = ebm.LangevinGuide(model, ebm.MALA(0.3, num_steps=2))
    svi = SVI(model, guide, optax.adam(0.1), Trace_ELBO())
    state = jax.jit(svi.init)(KEY, x)
    update = jax.jit(svi.update)
    state, _ = update(state, x)
    before = len(traced)
    for _ in range(3):
        state, _ = update(state, x)
    assert len(traced) == before
    assert svi.get_params(state)["weight"] != 1.0


# --- what it refuses ---


def test_what_it_refuses():
    x = random.normal(KEY, (5,))
    with pytest.raises(TypeError, match="`sampler` to have init and step, got float"):
        ebm.LangevinGuide(decoder_model, 0.1)
    with pytest.raises(ValueError, match=r"finite draws of \['z'\], .* lower its `step_size`"):
        run(ebm.LangevinGuide(decoder_model, ebm.Langevin(1e3, num_steps=50)), args=(x,))
    with pytest.raises(ValueError, match="`init` to have a density at site 'z', got none"):
        run(ebm.LangevinGuide(decoder_model, init=lambda x: None), args=(x,))
    point = ebm.LangevinGuide(decoder_model)
    with pytest.raises(ValueError, match="`init` to have a density at site 'z', got a Delta"):
        run(ebm.LangevinGuide(decoder_model, init=point), args=(x,))
    with pytest.raises(ValueError, match="a random key from a seed handler, got none"):
        handlers.trace(ebm.LangevinGuide(decoder_model)).get_trace(x)
