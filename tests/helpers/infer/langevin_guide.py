import math

import numpy as np
import pytest

from helpers import linear_gaussian as truth

VARIANCE = truth.SCALE**2
X = np.random.default_rng(0).normal(size=50)


def best_toy(host, layout="plate"):
    return truth.Toy(host, layout, precision=truth.PRECISION)


# --- the toy with a known answer ---


def fit(host, make_guide, layout, elbo, num_steps):
    """Results of a prior that starts at twice the best precision."""
    return truth.run(
        host,
        elbo,
        layout,
        make_guide=make_guide,
        num_steps=num_steps,
        num_averaged=num_steps // 2,
        precision=2 * truth.PRECISION,
        learning_rate=0.05,
        num_normalizer_samples=0,
    )


@pytest.mark.parametrize(
    ("layout", "elbo"), [("plate", "Trace"), ("subsample", "Trace x4 vectorized")]
)
def test_it_recovers_the_best_prior(host, layout, elbo):
    def guide(toy):
        return host.ebm.LangevinGuide(toy.model, host.ebm.MALA(0.8), num_steps=5)

    precision = fit(host, guide, layout, elbo, 100)["precision"]
    assert precision == pytest.approx(truth.PRECISION, rel=0.05)


def test_an_amortized_guide_learns_the_posterior(host):
    def guide(toy):
        return host.ebm.LangevinGuide(toy.model, host.ebm.MALA(0.8), num_steps=2, init=toy.guide)

    results = fit(host, guide, "subsample", "Trace", 500)
    assert results["precision"] == pytest.approx(truth.PRECISION, rel=0.05)
    assert results["slope"] == pytest.approx(truth.SLOPE, abs=0.06)
    assert results["scale"] == pytest.approx(truth.SCALE, abs=0.06)


# --- draws ---


@pytest.mark.parametrize("is_exact", [True, False])
def test_draws_are_of_the_posterior_with_the_known_bias(host, is_exact):
    toy = best_toy(host)
    sampler = host.ebm.MALA(0.8) if is_exact else host.ebm.Langevin(0.4)
    variance = VARIANCE if is_exact else VARIANCE / (1 - 0.4 / (2 * VARIANCE))
    z = host.draws(host.ebm.LangevinGuide(toy.model, sampler, num_steps=30))["z"]
    residuals = z - truth.SLOPE * truth.data()
    assert residuals.mean() == pytest.approx(0.0, abs=4 * math.sqrt(variance / 512))
    assert residuals.var() == pytest.approx(variance, rel=4 * math.sqrt(2 / 512))


def test_sites_are_constants_in_the_plates_of_the_model(host):
    toy = best_toy(host, "subsample")
    guide = host.ebm.LangevinGuide(toy.model, host.ebm.MALA(0.8))

    @host.jit
    def evaluate():
        guide_trace, trace = host.traces(guide, toy.model)
        assert guide_trace.keys() == trace.keys() - {"x"}
        site = guide_trace["z"]
        assert [frame.name for frame in site["cond_indep_stack"]] == ["data"]
        rows = toy.x[guide_trace["data"]["value"]]
        log_density = site["fn"].log_prob(site["value"])
        return site["value"], log_density, rows, trace["x"]["value"]

    z, log_density, rows, x = map(host.to_numpy, evaluate())
    assert abs(log_density).max() == 0
    # The chains ran on the model's own subsample.
    np.testing.assert_array_equal(x, rows)
    error = 4 * math.sqrt(2 / truth.SUBSAMPLE)
    assert np.var(z - truth.SLOPE * x) == pytest.approx(VARIANCE, rel=error)


@pytest.mark.parametrize("in_plate", [True, False])
def test_latents_have_plates_of_their_own(host, in_plate):
    def model(x):
        def sample_scale():
            return host.ppl.sample("scale", host.dist.HalfNormal(2.0))

        scale = None if in_plate else sample_scale()
        with host.ppl.plate("data", len(x), dim=-2):
            scale = sample_scale() if in_plate else scale
            with host.ppl.plate("features", x.shape[1], dim=-1):
                z = host.ppl.sample("z", host.dist.Normal(0.0, scale))
                host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x)

    guide = host.ebm.LangevinGuide(model, host.ebm.MALA(0.05), num_steps=3)

    @host.jit
    def evaluate(x):
        guide_trace, trace = host.traces(guide, model, x)
        for name in ("scale", "z"):
            assert guide_trace[name]["fn"].batch_shape == trace[name]["fn"].batch_shape
        return guide_trace["scale"]["value"], guide_trace["z"]["value"]

    scale, z = evaluate(host.array(np.ones((4, 3))))
    assert z.shape == (4, 3)
    assert (scale > 0).all()


# --- stock ELBOs ---


def decoder_model(host):
    def model(x):
        weight = host.ppl.param("weight", host.array(1.0))
        with host.ppl.plate("data", len(x)):
            z = host.ppl.sample("z", host.dist.Normal(0.0, 1.0))
            host.ppl.sample("x", host.dist.Normal(weight * z, 1.0), obs=x)

    return model


def test_stock_elbos_report_and_follow_the_joint_density(host, unweighted):
    def amortized(x):
        slope = host.ppl.param("slope", host.array(0.2))
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("z", host.dist.Normal(slope * x, 1.0))

    model, x = decoder_model(host), host.array(X)
    guide = host.ebm.LangevinGuide(model, host.ebm.MALA(0.3), num_steps=2, init=amortized)
    value, gradients = host.loss_and_gradients(unweighted(), model, guide, x)
    z, log_densities = host.draws_of_loss(guide, x)
    assert all(abs(log_density).max() == 0 for log_density in log_densities)
    log_joint = -0.5 * (z**2 + (X - z) ** 2) - math.log(2 * math.pi)
    assert value == pytest.approx(-log_joint.sum(), rel=1e-5)
    # The model's parameters go up log p(x, z); those of the amortized guide go up log q(z).
    assert gradients["weight"] == pytest.approx(-((X - z) * z).sum(), rel=1e-4)
    assert gradients["slope"] == pytest.approx(-((z - 0.2 * X) * X).sum(), rel=1e-4)


# --- refusals ---


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (lambda h: {"sampler": 0.1}, TypeError, "`sampler` to have init and step, .* got float"),
        (lambda h: {"num_steps": 0}, ValueError, "`num_steps` to be an integer of at least 1"),
        (lambda h: {"sampler": h.ebm.Langevin(1e3)}, ValueError, r"of \['z'\], .* `step_size`"),
        (lambda h: {"init": h.empty_guide}, ValueError, "have a density at site 'z', got none"),
        (
            lambda h: {"init": h.ebm.LangevinGuide(decoder_model(h))},
            ValueError,
            "`init` to have a density at site 'z', got a Delta",
        ),
    ],
    ids=["sampler", "steps", "diverged", "missing", "point"],
)
def test_refusals(host, options, error, message):
    model = decoder_model(host)
    with pytest.raises(error, match=message):
        host.traces(host.ebm.LangevinGuide(model, **options(host)), model, host.array(X))
