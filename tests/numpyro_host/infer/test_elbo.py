import math
import warnings

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from flax import nnx
from helpers import linear_gaussian as truth
from helpers.hosts.numpyro import (
    Bowl,
    attaching,
    empty_guide,
    fit,
    latent_model,
    mean_field_guide,
    observed_model,
    prior,
)
from jax import lax, random
from numpyro import handlers
from numpyro.contrib.module import eqx_module, nnx_module
from numpyro.infer import (
    SVI,
    Predictive,
    RenyiELBO,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from numpyro.infer.autoguide import AutoNormal
from numpyro.primitives import mutable

import pyro_ebm.numpyro as ebm
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.objectives.loss import Loss

DISCREPANCY = ebm.EnergyDiscrepancy(variance=1.0, num_samples=4)
X = random.normal(random.key(9), (8, 2))
LATENT, OBSERVED = latent_model(Bowl()), observed_model(Bowl())


def step(model, guide, objective=DISCREPANCY, elbo=None):
    return fit(model, guide, ebm.EnergyELBO(objective, elbo), X)


# --- the toy with a known answer ---

CELLS = [
    (elbo, "plate")
    for elbo in ("Trace", "Trace x4 vectorized", "TraceMeanField", "TraceGraph", "Renyi x2")
] + [("Trace", layout) for layout in truth.LAYOUTS if layout != "plate"]


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(("elbo", "layout"), CELLS)
def test_every_stock_elbo_recovers_the_prior(host, elbo, layout):
    results = truth.run(host, elbo, layout, num_steps=800, learning_rate=0.02, num_averaged=400)
    assert truth.is_optimal(results)


@pytest.mark.parametrize(
    "elbo", [Trace_ELBO(), Trace_ELBO(2), TraceMeanField_ELBO(), TraceGraph_ELBO(), RenyiELBO()]
)
def test_a_stock_elbo_leaves_the_energy_alone_and_warns(elbo):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        result = fit(LATENT, mean_field_guide, elbo, X, num_steps=5)
    (message,) = (str(w.message) for w in caught)
    for part in ("Nothing trains", "EnergyELBO", "jax.lax.stop_gradient"):
        assert part in message
    assert result.params["energy.weight"] == 0.5


def test_a_stock_elbo_does_not_warn_of_a_frozen_energy():
    frozen = latent_model(Bowl(), lambda energy: prior(lax.stop_gradient(energy)))
    fit(frozen, mean_field_guide, Trace_ELBO(), X)


# --- without an energy-based site it is the stock ELBO ---


def plain_model(x):
    scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
    with numpyro.plate("data", 16, subsample_size=8) as index:
        z = numpyro.sample("z", dist.Normal(0.0, scale))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x[index])


def plain_guide(x):
    slope = numpyro.param("slope", 0.5)
    with numpyro.plate("data", 16, subsample_size=8) as index:
        numpyro.sample("z", dist.Normal(slope * x[index], 0.7))


STOCK = {
    "Trace": lambda: Trace_ELBO(),
    "Trace x3": lambda: Trace_ELBO(3),
    "Trace x3 in turn": lambda: Trace_ELBO(3, vectorize_particles=False),
    "TraceMeanField": lambda: TraceMeanField_ELBO(),
    "TraceGraph": lambda: TraceGraph_ELBO(),
    "Renyi": lambda: RenyiELBO(),
}
PLAIN_X = random.normal(random.key(1), (16,))


@pytest.mark.parametrize("name", STOCK)
def test_without_energies_it_is_the_stock_elbo_to_the_last_bit(name):
    stock = fit(plain_model, plain_guide, STOCK[name](), PLAIN_X, num_steps=10)
    loss = ebm.EnergyELBO(DISCREPANCY, STOCK[name]())
    ours = fit(plain_model, plain_guide, loss, PLAIN_X, num_steps=10)
    assert (ours.losses == stock.losses).all()
    assert ours.params == stock.params
    assert loss.num_particles == STOCK[name]().num_particles
    assert loss.can_infer_discrete == STOCK[name]().can_infer_discrete


def test_mutable_state_is_stepped_once():
    def model(x):
        state = mutable("count", {"value": jnp.array(0.0)})
        state["value"] = state["value"] + 1
        plain_model(x)

    ours, stock = (
        fit(model, plain_guide, loss, PLAIN_X, num_steps=3)
        for loss in (ebm.EnergyELBO(DISCREPANCY), Trace_ELBO())
    )
    assert ours.state.mutable_state == stock.state.mutable_state
    assert (ours.losses == stock.losses).all()


def test_nnx_energies_are_trained():
    net = nnx.Linear(2, 1, rngs=nnx.Rngs(0))

    def make_prior(_):
        energy = nnx_module("energy", net)
        return prior(lambda x: energy(x)[:, 0])

    model, loss = observed_model(None, make_prior), ebm.EnergyELBO(DISCREPANCY)
    assert fit(model, empty_guide, loss, X + 3, num_steps=40).loss_fell


# --- the reported number ---


def test_the_log_normalizer_has_no_gradient():
    svi = SVI(LATENT, mean_field_guide, optax.adam(0.05), ebm.EnergyELBO(DISCREPANCY))
    params = svi.get_params(svi.init(random.key(0), X))

    def value_and_gradient(num_samples):
        loss = ebm.EnergyELBO(DISCREPANCY, num_normalizer_samples=num_samples).loss
        return jax.value_and_grad(
            lambda params: loss(random.key(3), params, LATENT, mean_field_guide, X)
        )(params)

    (with_estimate, gradient), (without, same) = value_and_gradient(20000), value_and_gradient(0)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), gradient, same))
    log_z = -math.log1p(4.0)  # Two dimensions, N(0, 4) times exp(-z^2 / 2).
    assert with_estimate - without == pytest.approx(8 * log_z, abs=0.5)


def test_a_missing_base_leaves_the_log_normalizer_out():
    model = observed_model(Bowl(), lambda energy: ebm.EnergyBased(energy, event_shape=(2,)))
    with pytest.warns(UserWarning, match="leaves out the log-normalizer of site 'x'"):
        step(model, empty_guide)


def test_a_known_log_normalizer_is_left_to_the_stock_elbo():
    def model(x):
        precision = numpyro.param("precision", jnp.array(3.0))
        density = ebm.EnergyBased(
            lambda z: 0.5 * precision * z**2,
            event_shape=(),
            log_normalizer=lambda: 0.5 * jnp.log(2 * jnp.pi / precision),
        )
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", density, obs=x)

    x = random.normal(random.key(0), (2000,)) * 2.0
    run = fit(model, empty_guide, ebm.EnergyELBO(DISCREPANCY), x, num_steps=300)
    variance = (x**2).mean()
    assert run.params["precision"] == pytest.approx(float(1 / variance), rel=0.02)
    exact = -dist.Normal(0.0, jnp.sqrt(variance)).log_prob(x).sum()
    assert run.losses[-1] == pytest.approx(float(exact), rel=1e-3)
    with pytest.raises(ValueError, match="Expected objectives for energy-based sites"):
        fit(model, empty_guide, ebm.EnergyELBO({"x": DISCREPANCY}), x)


def test_observed_sites_need_no_guide():
    def model(x):
        energy = eqx_module("energy", Bowl())
        with numpyro.plate("data", len(x), subsample_size=512) as index:
            numpyro.sample("x", prior(energy), obs=x[index])

    x, loss = random.normal(random.key(1), (4096, 2)), ebm.EnergyELBO(DISCREPANCY)
    run = fit(model, empty_guide, loss, x, num_steps=400, learning_rate=0.02)
    # Precision 1 = 1/4 of the base + 2 * weight.
    assert run.mean("energy.weight", 100) == pytest.approx(0.375, rel=0.06)


def test_metrics_are_means_of_the_objective():
    loss = ebm.EnergyELBO(DISCREPANCY)
    svi = SVI(LATENT, mean_field_guide, optax.adam(0.05), loss)
    params = svi.get_params(svi.init(random.key(0), X))
    found = [
        loss.metrics(key, params, LATENT, mean_field_guide, X)
        for key in random.split(random.key(1), 20)
    ]
    assert {site: set(metrics) for site, metrics in found[0].items()} == {"z": {"objective"}}
    mean = sum(metrics["z"]["objective"] for metrics in found) / 20
    z = X + 0.5 * random.normal(random.key(2), (2000, 8, 2))
    expected = DISCREPANCY.loss(random.key(3), prior(Bowl()), z).value.mean()
    assert mean == pytest.approx(float(expected), abs=0.2)


def test_repr_shows_all_settings():
    loss = ebm.EnergyELBO(DISCREPANCY, RenyiELBO(num_particles=3), num_normalizer_samples=7)
    expected = f"EnergyELBO({DISCREPANCY}, RenyiELBO(num_particles=3), num_normalizer_samples=7)"
    assert repr(loss) == expected


def test_masked_nan_reaches_no_gradient():
    def model(x):
        with handlers.mask(mask=jnp.arange(8) != 3):
            OBSERVED(x)

    x = X.at[3].set(jnp.nan)
    result = fit(model, empty_guide, ebm.EnergyELBO(DISCREPANCY), x, num_steps=3)
    assert jnp.isfinite(result.losses).all()
    assert jnp.isfinite(result.params["energy.weight"])


# --- losses and gradients that are not finite ---


class Exploding:
    """An objective that is infinite."""

    def loss(self, rng_key, distribution, value):
        return Loss(distribution.potential(value) * jnp.inf, {})


class Kinked:
    """The root of zero has no gradient."""

    def loss(self, rng_key, distribution, value):
        energy = scaled_energy(distribution, value)
        return Loss(energy + jnp.sqrt(energy - lax.stop_gradient(energy)), {})


def checked_svi(objective):
    loss = ebm.EnergyELBO(objective, num_normalizer_samples=0)
    return SVI(OBSERVED, empty_guide, optax.sgd(0.1), loss)


def weight_of(svi, state):
    return svi.get_params(state)["energy$params"].weight


def test_an_infinite_loss_is_an_error_outside_of_jit():
    svi = checked_svi(Exploding())
    state = svi.init(random.key(0), X)
    for step in (svi.update, svi.stable_update, svi.evaluate):
        with pytest.raises(ValueError, match="finite losses .* 'x', .* smaller learning rate"):
            step(state, X)


@pytest.mark.parametrize("objective", [Exploding(), Kinked()])
def test_stable_updates_keep_the_last_parameters(objective):
    svi = checked_svi(objective)
    state, loss = jax.jit(svi.stable_update)(svi.init(random.key(0), X), X)
    assert jnp.isnan(loss)
    assert weight_of(svi, state) == 0.5


def test_without_validation_nothing_is_checked():
    svi = checked_svi(Exploding())
    with numpyro.validation_enabled(is_validate=False):
        _, loss = svi.update(svi.init(random.key(0), X), X)
    assert jnp.isnan(loss)


# --- attached parts ---


class Matched:
    """Objective that pulls a learner to the mean of the values and the energy nowhere."""

    def loss(self, rng_key, distribution, value, *, target):
        return Loss((target - value.mean(-1)) ** 2 + 0.0 * distribution.potential(value), {})


def matching_guide(x):
    ebm.attach("x", target=numpyro.param("target", jnp.array(0.0)))


@pytest.mark.parametrize(
    "elbo",
    [Trace_ELBO(3), Trace_ELBO(3, vectorize_particles=False), TraceGraph_ELBO(), RenyiELBO()],
)
def test_attached_parameters_are_trained(elbo):
    loss = ebm.EnergyELBO({"x": Matched()}, elbo)
    run = fit(OBSERVED, matching_guide, loss, X, num_steps=200)
    assert run.params["target"] == pytest.approx(float(X.mean()), abs=0.02)


def test_attach_has_no_effect_elsewhere():
    def guide(x):
        plain_guide(x)
        matching_guide(x)

    ebm.attach("x", target=1.0)
    fit(plain_model, guide, Trace_ELBO(), PLAIN_X)
    params = {"target": jnp.array(0.0)}
    predictive = Predictive(OBSERVED, guide=matching_guide, params=params, num_samples=3)
    assert predictive(random.key(0), X)["x"].shape == (3, 8, 2)


# --- refusals ---


def mixture_model(x):
    with numpyro.plate("data", len(x)):
        mixing = dist.Categorical(jnp.ones(3) / 3)
        numpyro.sample("x", dist.MixtureSameFamily(mixing, prior(Bowl()).expand((3,))), obs=x)


def under_classes(x):
    energy = eqx_module("energy", Bowl())
    with numpyro.plate("data", len(x)):
        mixing = dist.Categorical(jnp.ones(3) / 3)
        kind = numpyro.sample("kind", mixing, infer={"enumerate": "parallel"})
        base = dist.Normal(kind[:, None] * jnp.ones(2), 1.0).to_event(1)
        numpyro.sample("x", ebm.EnergyBased(energy, base), obs=x)


def doubly_intractable_model(where):
    def model(x):
        energy = eqx_module("energy", Bowl())
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with numpyro.plate("data", len(x)):
            if where == "energy":
                fn = prior(lambda x: scale * energy(x))
            else:
                fn = ebm.EnergyBased(energy, dist.Normal(jnp.zeros(2), scale).to_event(1))
            numpyro.sample("x", fn, obs=x)

    return model


def attaching_model(x):
    ebm.attach("x", critic=1.0)
    OBSERVED(x)


def energy_guide(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", prior(Bowl()))


def scale_guide(x):
    numpyro.sample("scale", dist.LogNormal(numpyro.param("loc", 0.0), 0.1))


EXPANDED = observed_model(Bowl(), lambda energy: prior(energy).expand((3, 8)))


@pytest.mark.parametrize(
    ("model", "guide", "objective", "message"),
    [
        (LATENT, energy_guide, DISCREPANCY, "EnergyBased at site 'z' of the guide"),
        (mixture_model, empty_guide, DISCREPANCY, "components of MixtureSameFamily"),
        (doubly_intractable_model("energy"), scale_guide, DISCREPANCY, "latent variable 'scale'"),
        (doubly_intractable_model("base"), scale_guide, DISCREPANCY, "latent variable 'scale'"),
        (EXPANDED, empty_guide, DISCREPANCY, r"got batch shape \(3, 8\) with no plate at -2"),
        (LATENT, mean_field_guide, {"y": DISCREPANCY}, r"the model \(\['z'\]\), got 'y'"),
        (OBSERVED, empty_guide, Matched(), r"attach \['target'\] to site 'x' .*, got nothing"),
        (OBSERVED, matching_guide, DISCREPANCY, r"attach nothing to site 'x' .*'target'"),
        (
            OBSERVED,
            attaching("typo", target=1.0),
            DISCREPANCY,
            r"attach\(...\) for sites with an objective \(\['x'\]\), got 'typo'",
        ),
        (attaching_model, empty_guide, DISCREPANCY, r"attach\('x', ...\) in the guide, got it in"),
    ],
    ids="guide mixture energy base plate objective missing unwanted typo in_model".split(),
)
def test_refusals(model, guide, objective, message):
    with pytest.raises(ValueError, match=message):
        step(model, guide, objective)


def test_energies_under_enumerated_classes_are_refused():
    with pytest.raises(ValueError, match="site 'x' .*dependence on the latent variable 'kind'"):
        step(under_classes, empty_guide, elbo=TraceGraph_ELBO())


def test_a_latent_may_transform_the_value():
    def model(x):
        shift = numpyro.sample("shift", dist.Normal(0.0, 1.0))
        energy = eqx_module("energy", Bowl())
        moved = dist.transforms.AffineTransform(shift, 1.0)
        with numpyro.plate("data", len(x)):
            fn = dist.TransformedDistribution(prior(energy).expand((len(x),)), moved)
            numpyro.sample("x", fn, obs=x)

    result = fit(model, AutoNormal(model), ebm.EnergyELBO(DISCREPANCY), X, num_steps=2)
    assert result.params["energy.weight"] != 0.5


@pytest.mark.parametrize(
    ("elbo", "error", "message"),
    [
        ("Trace", TypeError, "ELBO of NumPyro, got str"),
        (Trace_ELBO(sum_sites=False), ValueError, "sum_sites=True, got False"),
        (Trace_ELBO(multi_sample_guide=True), ValueError, "multi_sample_guide=False"),
    ],
)
def test_wrong_elbos(elbo, error, message):
    with pytest.raises(error, match=message):
        ebm.EnergyELBO(DISCREPANCY, elbo)


# --- parameters that nothing trains ---

UNSEEN = Bowl()


@pytest.mark.parametrize(
    ("energy", "named"),
    [(UNSEEN, "weight"), (lambda z: UNSEEN(z), "UNSEEN.weight")],
    ids=["module", "closure"],
)
def test_parameters_that_no_optimizer_updates_are_named(energy, named):
    model = latent_model(None, lambda _: prior(energy))
    message = f"No optimizer will update these parameters of site 'z': {named}; register"
    with pytest.warns(UserWarning, match=message):
        step(model, mean_field_guide)
    # An empty dictionary says that it is meant.
    step(model, mean_field_guide, {})


def test_a_site_without_objective_is_named():
    def model(x):
        one, two = eqx_module("one", Bowl()), eqx_module("two", Bowl())
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", prior(one))
            numpyro.sample("x", prior(two), obs=x)

    with pytest.warns(UserWarning, match="Nothing trains"):
        step(model, mean_field_guide, {"z": DISCREPANCY})
