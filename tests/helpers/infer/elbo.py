import math
import warnings
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from helpers import linear_gaussian as truth
from helpers.objectives.objectives import OBJECTIVES, parts
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives.loss import Loss

rng = np.random.default_rng(9)
X, PLAIN_X = rng.normal(size=(8, 2)), rng.normal(size=16)


def discrepancy(host):
    return host.ebm.EnergyDiscrepancy(variance=1.0, num_samples=4)


def fit(host, model, guide, loss, x=X, **options):
    return host.fit(model, guide, loss, host.array(x), **options)


def step(host, model, guide, objective=None, elbo=None):
    objective = discrepancy(host) if objective is None else objective
    return fit(host, model, guide, host.ebm.EnergyELBO(objective, elbo))


def latent(host):
    return host.latent_model(host.Bowl())


def observed(host):
    return host.observed_model(host.Bowl())


# --- the toy with a known answer ---


def check_recovery(host, elbo, layout):
    # Over seeds the precision has a deviation of 1 %; that of subsamples would be twice as large.
    num_steps = 800 if layout == "subsample" else 400
    options = {"num_steps": num_steps, "num_averaged": num_steps * 5 // 8, "learning_rate": 0.03}
    start = 2 * truth.PRECISION
    assert truth.is_optimal(truth.run(host, elbo, layout, precision=start, **options))


def test_every_stock_elbo_recovers_the_prior(host, elbo_name, optimized):
    check_recovery(host, elbo_name, "plate")


@pytest.mark.parametrize("layout", [layout for layout in truth.LAYOUTS if layout != "plate"])
def test_every_layout_recovers_the_prior(host, layout, optimized):
    check_recovery(host, "Trace", layout)


def test_a_stock_elbo_leaves_the_energy_alone_and_warns(host, stock):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        result = fit(host, latent(host), host.mean_field_guide, stock(), num_steps=5)
    (message,) = (str(w.message) for w in caught if "Nothing trains" in str(w.message))
    assert "EnergyELBO" in message
    assert "requires_grad_(False)" in message or "jax.lax.stop_gradient" in message
    assert result.params["energy.weight"] == 0.5


def test_a_stock_elbo_does_not_warn_of_a_frozen_energy(host):
    frozen = host.latent_model(host.Bowl(), lambda energy: host.prior(host.held(energy)))
    fit(host, frozen, host.mean_field_guide, host.infer.Trace_ELBO())


# --- without an energy-based site it is the stock ELBO ---


def plain_model(host):
    def model(x):
        positive = host.dist.constraints.positive
        scale = host.ppl.param("scale", host.array(1.0), constraint=positive)
        with host.ppl.plate("data", 16, subsample_size=8) as index:
            z = host.ppl.sample("z", host.dist.Normal(0.0, scale))
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x[index])

    return model


def plain_guide(host):
    def guide(x):
        slope = host.ppl.param("slope", host.array(0.5))
        with host.ppl.plate("data", 16, subsample_size=8) as index:
            host.ppl.sample("z", host.dist.Normal(slope * x[index], 0.7))

    return guide


def test_without_energies_it_is_the_stock_elbo_to_the_last_bit(host, stock):
    loss, found = host.ebm.EnergyELBO(discrepancy(host), stock()), []
    for elbo in (stock(), loss):
        host.start_again()
        found.append(fit(host, plain_model(host), plain_guide(host), elbo, PLAIN_X, num_steps=10))
    np.testing.assert_array_equal(found[0].losses, found[1].losses)
    assert found[0].params == found[1].params
    assert loss.num_particles == stock().num_particles


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_scalar_site_outside_of_a_plate_is_a_batch_of_one(host, name):
    def model(x):
        energy = host.bind(lambda a, x: 0.5 * a * x**2, host.ppl.param("a", host.array(0.3)))
        base = host.dist.Normal(host.array(0.0), 1.0)
        with host.ppl.plate("data", 1) if x.ndim else nullcontext():
            host.ppl.sample("x", host.ebm.EnergyBased(energy, base), obs=x)

    guide = host.attaching("x", **parts(host, name, np.linspace(-1.0, 1.0, 5)))
    options = {"gradient_penalty": 1.0} if name == "kale" else {}
    loss = host.ebm.EnergyELBO(replace(OBJECTIVES[name][0](host.ebm), **options))
    found = [host.loss_and_gradients(loss, model, guide, host.array(x)) for x in (0.5, [0.5])]
    (value, gradients), (expected, of_one) = found
    np.testing.assert_allclose([value, gradients["a"]], [expected, of_one["a"]], rtol=1e-5)


# --- the reported number ---


def test_the_log_normalizer_has_no_gradient(host):
    def loss_and_gradient(num_samples):
        loss = host.ebm.EnergyELBO(discrepancy(host), num_normalizer_samples=num_samples)
        return host.loss_and_gradients(loss, latent(host), host.mean_field_guide, host.array(X))

    (with_estimate, gradients), (without, same) = map(loss_and_gradient, (20000, 0))
    assert gradients["energy.weight"] == same["energy.weight"] != 0
    np.testing.assert_array_equal(gradients["shift"], same["shift"])
    log_z = -math.log1p(4.0)  # Two dimensions, N(0, 4) times exp(-z^2 / 2).
    assert with_estimate - without == pytest.approx(8 * log_z, abs=0.5)


def test_a_missing_base_leaves_the_log_normalizer_out(host):
    flat = host.observed_model(host.Bowl(), lambda u: host.ebm.EnergyBased(u, event_shape=(2,)))
    with pytest.warns(UserWarning, match="leaves out the log-normalizer of site 'x'"):
        step(host, flat, host.empty_guide)


def test_a_known_log_normalizer_is_left_to_the_stock_elbo(host):
    def model(x):
        precision = host.ppl.param("precision", host.array(3.0))
        density = host.ebm.EnergyBased(
            lambda z: 0.5 * precision * z**2,
            event_shape=(),
            log_normalizer=lambda: 0.5 * host.xp.log(2 * host.xp.pi / precision),
        )
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("x", density, obs=x)

    x, loss = 2.0 * rng.normal(size=2000), host.ebm.EnergyELBO(discrepancy(host))
    found = fit(host, model, host.empty_guide, loss, x, num_steps=300)
    variance = (x**2).mean()
    assert found.params["precision"] == pytest.approx(1 / variance, rel=0.02)
    exact = 1000 * (math.log(2 * math.pi * variance) + 1)
    assert found.losses[-1] == pytest.approx(exact, rel=1e-3)
    with pytest.raises(ValueError, match="Expected objectives for energy-based sites"):
        step(host, model, host.empty_guide, {"x": discrepancy(host)})


def test_observed_sites_need_no_guide(host):
    def model(x):
        registered = host.register("energy", energy)
        with host.ppl.plate("data", len(x), subsample_size=512) as index:
            host.ppl.sample("x", host.prior(registered), obs=x[index])

    energy, loss = host.Bowl(), host.ebm.EnergyELBO(discrepancy(host))
    options = {"num_steps": 400, "learning_rate": 0.02}
    found = fit(host, model, host.empty_guide, loss, rng.normal(size=(4096, 2)), **options)
    # Precision 1 = 1/4 of the base + 2 * weight.
    assert found.mean("energy.weight", 100) == pytest.approx(0.375, rel=0.06)


def test_metrics_are_means_of_the_objective_and_change_nothing(host):
    class Energy:
        def loss(self, *args):
            energy = scaled_energy(*args[-2:])
            return Loss(energy, {"largest": lambda: energy.max()})

    loss = host.ebm.EnergyELBO(Energy())
    run = host.Training(latent(host), host.mean_field_guide, loss, host.sgd(0.0))
    run.step(X)
    found = [run.metrics(X, seed=seed)["z"] for seed in range(20)]
    names = {"objective", "largest", "effective_normalizer_samples"}
    assert all(set(metrics) == names for metrics in found)
    assert all(metrics["objective"] < metrics["largest"] for metrics in found)
    mean = sum(float(metrics["objective"]) for metrics in found) / 20
    # E(z) = |z|^2 / 2 at z ~ N(x, 0.5^2).
    assert mean == pytest.approx((X**2).sum(-1).mean() / 2 + 0.25, abs=0.2)
    assert run.param("energy.weight") == 0.5


def test_repr_shows_all_settings(host):
    renyi = host.infer.RenyiELBO(num_particles=3)
    loss = host.ebm.EnergyELBO(discrepancy(host), renyi, num_normalizer_samples=7)
    shown = f"EnergyELBO({discrepancy(host)}, RenyiELBO(num_particles=3), num_normalizer_samples=7)"
    assert repr(loss) == shown


def test_an_elbo_of_the_host_is_needed(host):
    with pytest.raises(TypeError, match=f"ELBO of {host.HOST}, got str"):
        host.ebm.EnergyELBO(discrepancy(host), "Trace")


def test_a_guide_of_rows_learns_by_score_functions(host):
    """Gradients of the exact ELBO, in mean and scale of a number and log-odds of a code."""
    columns, number = [host.ebm.Column.nominal(2), host.ebm.Column.numeric()], 40_000
    zeros, ones = host.array([0.0, 0.0]), host.array([1.0, 1.0])

    def model():
        with host.ppl.plate("data", number):
            base = host.ebm.ColumnMarginals(columns, zeros, ones, host.array(np.zeros((2, 2))))
            z = host.ppl.sample("z", base)
            x = host.dist.Normal(z.sum(-1), 1.0)
            host.ppl.sample("x", x, obs=host.array(np.ones(number)))

    def guide():
        loc = host.ppl.param("loc", host.array([0.0, 0.5]))
        scale = host.ppl.param("scale", host.array([1.0, 1.0]))
        logits = host.ppl.param("logits", host.array([[0.0, 1.0], [0.0, 0.0]]))
        with host.ppl.plate("data", number):
            host.ppl.sample("z", host.ebm.ColumnMarginals(columns, loc, scale, logits))

    _, found = host.loss_and_gradients(host.infer.TraceGraph_ELBO(), model, guide)
    p, error = 1 / (1 + math.exp(-1)), 1 - 1 / (1 + math.exp(-1)) - 0.5
    by_logit = p * (1 - p) * (0.5 - p - error + 1.0)
    assert found["loc"] / number == pytest.approx([0.0, 0.5 - error], abs=0.05)
    assert found["scale"] / number == pytest.approx([0.0, 1.0], abs=0.15)
    assert found["logits"][0] / number == pytest.approx([-by_logit, by_logit], abs=0.05)
