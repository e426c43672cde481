import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from helpers import linear_gaussian as truth
from helpers.linear_gaussian_numpyro import run
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

DISCREPANCY = ebm.EnergyDiscrepancy(variance=1.0, num_negatives=4)
X = random.normal(random.key(9), (8, 2))


class Bowl(eqx.Module):
    weight: jax.Array

    def __call__(self, z):
        return self.weight * (z.reshape(len(z), -1) ** 2).sum(-1)


def bowl():
    return Bowl(jnp.array(0.5))


def prior(energy):
    return ebm.EnergyBased(energy, dist.Normal(jnp.zeros(2), 2.0).to_event(1))


def latent_model(x):
    energy = eqx_module("energy", bowl())
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", prior(energy))
        numpyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def mean_field_guide(x):
    shift = numpyro.param("shift", jnp.zeros(2))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(x + shift, 0.5).to_event(1))


def empty_guide(x):
    del x


def fit(model, guide, loss, x, *, num_steps=1, learning_rate=0.05, **options):
    svi = SVI(model, guide, optax.adam(learning_rate), loss)
    return svi.run(random.key(0), num_steps, x, progress_bar=False, **options)


# --- the toy with a known answer: a part of the matrix of tests/benchmarks ---

CELLS = [
    (elbo, "plate")
    for elbo in ("Trace", "Trace x4 vectorized", "TraceMeanField", "TraceGraph", "Renyi x2")
] + [("Trace", layout) for layout in truth.LAYOUTS if layout != "plate"]


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(("elbo", "layout"), CELLS)
def test_every_stock_elbo_recovers_the_prior(elbo, layout):
    figures = run(elbo, layout, num_steps=1500, seed=1)
    assert figures["precision"] == pytest.approx(truth.PRECISION, rel=0.05)
    assert figures["loss"] == pytest.approx(truth.NEGATIVE_LOG_EVIDENCE, abs=0.05)
    assert figures["slope"] == pytest.approx(truth.SLOPE, abs=0.05)
    assert figures["scale"] == pytest.approx(truth.SCALE, abs=0.05)


@pytest.mark.parametrize(
    "elbo", [Trace_ELBO(), Trace_ELBO(2), TraceMeanField_ELBO(), TraceGraph_ELBO(), RenyiELBO()]
)
def test_stock_elbo_leaves_the_energy_alone_and_warns(elbo):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        result = fit(latent_model, mean_field_guide, elbo, X, num_steps=5)
    messages = [str(w.message) for w in caught]
    assert len(messages) == 1
    assert "Nothing trains" in messages[0]
    assert "EnergyELBO" in messages[0]
    assert "jax.lax.stop_gradient" in messages[0]
    assert result.params["energy$params"].weight == 0.5


def test_an_energy_that_is_meant_to_stay_is_no_reason_to_warn():
    def model(x):
        energy = jax.lax.stop_gradient(eqx_module("energy", bowl()))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", prior(energy))
            numpyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    fit(model, mean_field_guide, Trace_ELBO(), X)


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


@pytest.mark.parametrize("name", STOCK)
def test_without_energy_sites_it_is_the_stock_elbo_to_the_last_bit(name):
    x = random.normal(random.key(1), (16,))
    stock = fit(plain_model, plain_guide, STOCK[name](), x, num_steps=10)
    loss = ebm.EnergyELBO(DISCREPANCY, STOCK[name]())
    ours = fit(plain_model, plain_guide, loss, x, num_steps=10)
    assert (ours.losses == stock.losses).all()
    assert ours.params == stock.params
    assert loss.num_particles == STOCK[name]().num_particles
    assert loss.can_infer_discrete == STOCK[name]().can_infer_discrete


def test_mutable_state_is_stepped_once():
    def model(x):
        state = mutable("count", {"value": jnp.array(0.0)})
        state["value"] = state["value"] + 1
        plain_model(x)

    x = random.normal(random.key(1), (16,))
    result = fit(model, plain_guide, ebm.EnergyELBO(DISCREPANCY), x, num_steps=3)
    stock = fit(model, plain_guide, Trace_ELBO(), x, num_steps=3)
    assert (
        result.state.mutable_state["count"]["value"] == stock.state.mutable_state["count"]["value"]
    )
    assert (result.losses == stock.losses).all()


# --- how the host runs it ---


def test_run_update_and_evaluate_agree():
    svi = SVI(latent_model, mean_field_guide, optax.adam(0.05), ebm.EnergyELBO(DISCREPANCY))
    compiled = svi.run(random.key(0), 2, X, progress_bar=False)
    bar = svi.run(random.key(0), 2, X, progress_bar=True, stable_update=True)
    state, losses = svi.init(random.key(0), X), []
    evaluate, update = jax.jit(svi.evaluate), jax.jit(svi.update)
    for _ in range(2):
        losses.append(evaluate(state, X))
        state, loss = update(state, X)
        assert jnp.isclose(loss, losses[-1], rtol=1e-5)
    assert jnp.allclose(compiled.losses, jnp.array(losses), rtol=1e-4)
    assert jnp.allclose(bar.losses, compiled.losses, rtol=1e-4)
    weight = svi.get_params(state)["energy$params"].weight
    assert jnp.isclose(weight, compiled.params["energy$params"].weight, rtol=1e-4)
    assert weight != 0.5


def test_nnx_energies_are_trained():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self):
            self.weight = nnx.Param(jnp.array(0.5))

        def __call__(self, z):
            return self.weight[...] * (z**2).sum(-1)

    net = Net()

    def model(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", prior(nnx_module("energy", net)), obs=x)

    result = fit(model, empty_guide, ebm.EnergyELBO(DISCREPANCY), X, num_steps=3)
    assert jax.tree.leaves(result.params)[0] != 0.5


# --- what it reports ---


def test_the_log_normalizer_can_be_left_out_and_touches_no_gradient():
    svi = SVI(latent_model, mean_field_guide, optax.adam(0.05), ebm.EnergyELBO(DISCREPANCY))
    params = svi.get_params(svi.init(random.key(0), X))

    def value_and_gradient(num_samples):
        loss = ebm.EnergyELBO(DISCREPANCY, num_normalizer_samples=num_samples).loss
        return jax.value_and_grad(
            lambda params: loss(random.key(3), params, latent_model, mean_field_guide, X)
        )(params)

    (with_estimate, gradient), (without, same) = value_and_gradient(20000), value_and_gradient(0)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), gradient, same))
    log_z = -jnp.log1p(4.0)  # Two dimensions, N(0, 4) times exp(-z^2 / 2).
    assert with_estimate - without == pytest.approx(8 * log_z, abs=0.5)


def test_without_a_base_it_says_what_is_left_out():
    def model(x):
        energy = eqx_module("energy", bowl())
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", ebm.EnergyBased(energy, event_shape=(2,)), obs=x)

    with pytest.warns(UserWarning, match="leaves out the log-normalizer of site 'x'"):
        fit(model, empty_guide, ebm.EnergyELBO(DISCREPANCY), X)


def test_known_log_normalizer_is_left_to_the_stock_elbo():
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
    result = fit(model, empty_guide, ebm.EnergyELBO(DISCREPANCY), x, num_steps=300)
    assert result.params["precision"] == pytest.approx(float(1 / (x**2).mean()), rel=0.02)
    exact = -dist.Normal(0.0, jnp.sqrt((x**2).mean())).log_prob(x).sum()
    assert result.losses[-1] == pytest.approx(float(exact), rel=1e-3)
    with pytest.raises(ValueError, match="Expected objectives for energy-based sites"):
        fit(model, empty_guide, ebm.EnergyELBO({"x": DISCREPANCY}), x)


def test_observed_sites_are_trained_with_an_empty_guide():
    def model(x):
        energy = eqx_module("energy", bowl())
        with numpyro.plate("data", len(x), subsample_size=512) as index:
            numpyro.sample("x", prior(energy), obs=x[index])

    x = random.normal(random.key(1), (4096, 2))
    svi = SVI(model, empty_guide, optax.adam(0.02), ebm.EnergyELBO(DISCREPANCY))

    def step(state, _):
        state = svi.update(state, x)[0]
        return state, svi.get_params(state)["energy$params"].weight

    _, path = jax.lax.scan(step, svi.init(random.key(0), x), length=400)
    # Precision 1 = 1/4 of the base + 2 * weight.
    assert path[-100:].mean() == pytest.approx(0.375, rel=0.06)


def test_health_can_be_read():
    loss = ebm.EnergyELBO(DISCREPANCY)
    svi = SVI(latent_model, mean_field_guide, optax.adam(0.05), loss)
    params = svi.get_params(svi.init(random.key(0), X))
    values = [
        loss.health(key, params, latent_model, mean_field_guide, X)
        for key in random.split(random.key(1), 20)
    ]
    assert {site: set(figures) for site, figures in values[0].items()} == {"z": {"objective"}}
    mean = sum(value["z"]["objective"] for value in values) / 20
    z = X + 0.5 * random.normal(random.key(2), (2000, 8, 2))
    expected = DISCREPANCY.loss(random.key(3), prior(bowl()), z).mean()
    assert mean == pytest.approx(float(expected), abs=0.2)


def test_check_health_names_the_site():
    loss = ebm.EnergyELBO(DISCREPANCY)
    result = fit(latent_model, mean_field_guide, loss, X)
    arguments = (latent_model, mean_field_guide, X)
    loss.check_health(random.key(0), result.params, *arguments)
    broken = result.params | {"energy$params": Bowl(jnp.array(jnp.nan))}
    with pytest.raises(ValueError, match="finite energies at site 'z'"):
        loss.check_health(random.key(0), broken, *arguments)


def test_masked_nan_reaches_no_gradient():
    x = X.at[3].set(jnp.nan)

    def model(x):
        energy = eqx_module("energy", bowl())
        with numpyro.plate("data", len(x)), handlers.mask(mask=jnp.arange(8) != 3):
            numpyro.sample("x", prior(energy), obs=x)

    result = fit(model, empty_guide, ebm.EnergyELBO(DISCREPANCY), x, num_steps=3)
    assert jnp.isfinite(result.losses).all()
    assert jnp.isfinite(result.params["energy$params"].weight)


def observed_model(x):
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", prior(eqx_module("energy", bowl())), obs=x)


# --- training that runs away ---


def guarded_svi(objective, learning_rate=0.1, **bounds):
    loss = ebm.EnergyELBO(objective, num_normalizer_samples=0, **bounds)
    return SVI(observed_model, empty_guide, optax.sgd(learning_rate), loss)


def weight_of(svi, state):
    return svi.get_params(state)["energy$params"].weight


CONTRASTIVE = ebm.ContrastiveDivergence(sampler=ebm.MALA(0.1, num_steps=2))
NUMBER = r"[0-9.]+(e\+[0-9]+)?"


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"max_energy_scale": 50.0}, "at most 1e+08 and energies that differ by at most 50 "),
        ({"max_loss": 500.0}, "at most 500 and energies that differ by at most 1e+06 "),
    ],
)
def test_energies_that_run_away_keep_the_last_parameters(bounds, expected):
    svi = guarded_svi(CONTRASTIVE, learning_rate=30.0, **bounds)
    run = svi.run(random.key(0), 6, X, stable_update=True, progress_bar=False)
    taken = jnp.isfinite(run.losses)
    assert taken[0]
    assert not taken[-1]
    # With the key of the run, as many steps as it took.
    state, update = svi.init(random.key(0), X), jax.jit(svi.update)
    for _ in range(int(taken.argmin())):
        state, _ = update(state, X)
    assert run.params["energy$params"].weight == pytest.approx(float(weight_of(svi, state)))
    arguments = (random.key(1), run.params, observed_model, empty_guide, X)
    with pytest.raises(ValueError, match=rf"at site 'x', got {NUMBER} and {NUMBER}") as error:
        svi.loss.check_health(*arguments)
    assert f"Expected a loss of {expected}" in str(error.value)
    assert "smaller learning rate" in str(error.value)


class Exploding:
    """An objective that is out of range."""

    def loss(self, rng_key, distribution, value):
        del rng_key
        return distribution.potential(value) * 1e9


def test_outside_of_jit_a_step_out_of_range_is_an_error():
    svi = guarded_svi(Exploding())
    state = svi.init(random.key(0), X)
    for step in (svi.update, svi.stable_update, svi.evaluate):
        with pytest.raises(ValueError, match=r"loss of at most 1e\+08 .* at site 'x'"):
            step(state, X)


class Kinked:
    """The root of zero: a number without a gradient."""

    def loss(self, rng_key, distribution, value):
        del rng_key
        energy = distribution.evaluate(value)
        return energy + jnp.sqrt(energy - lax.stop_gradient(energy))


def test_gradients_that_are_no_numbers_are_left_to_stable_updates():
    svi = guarded_svi(Kinked())
    state = svi.init(random.key(0), X)
    assert jnp.isfinite(svi.evaluate(state, X))
    state, loss = svi.stable_update(state, X)
    assert jnp.isnan(loss)
    assert weight_of(svi, state) == 0.5


def test_without_validation_nothing_is_guarded():
    svi = guarded_svi(Exploding(), learning_rate=1e-12)
    with numpyro.validation_enabled(is_validate=False):
        state, loss = svi.update(svi.init(random.key(0), X), X)
    assert jnp.isfinite(loss)
    assert weight_of(svi, state) != 0.5


# --- learners beside the energy ---


class Matched:
    """Objective that pulls a learner to the mean of the values and the energy nowhere."""

    def loss(self, rng_key, distribution, value, *, target):
        del rng_key
        return (target - value.mean(-1)) ** 2 + 0.0 * distribution.potential(value)


def matching_guide(x):
    ebm.auxiliary("x", target=numpyro.param("target", jnp.array(0.0)))


@pytest.mark.parametrize(
    "elbo",
    [
        Trace_ELBO(3),
        Trace_ELBO(3, vectorize_particles=False),
        TraceGraph_ELBO(),
        RenyiELBO(),
    ],
)
def test_auxiliary_learners_are_trained(elbo):
    loss = ebm.EnergyELBO({"x": Matched()}, elbo)
    result = fit(observed_model, matching_guide, loss, X, num_steps=200)
    assert result.params["target"] == pytest.approx(float(X.mean()), abs=0.02)


def test_auxiliary_is_harmless_elsewhere():
    ebm.auxiliary("x", target=1.0)
    fit(
        lambda x: plain_model(x),
        lambda x: (plain_guide(x), matching_guide(x)),
        Trace_ELBO(),
        X[:, 0].repeat(2),
    )
    params = {"target": jnp.array(0.0)}
    draws = Predictive(observed_model, guide=matching_guide, params=params, num_samples=3)(
        random.key(0), X
    )
    assert draws["x"].shape == (3, 8, 2)


# --- what it refuses ---


def refuse(model, guide, message, objective=DISCREPANCY, elbo=None, error=ValueError):
    with pytest.raises(error, match=message):
        fit(model, guide, ebm.EnergyELBO(objective, elbo), X)


def test_learners_must_be_declared_for_the_objective_that_asks():
    message = r"declare \['target'\] for the objective of site 'x'.*got nothing"
    refuse(observed_model, empty_guide, message, Matched())
    message = r"declare nothing for the objective of site 'x'.*got \['target'\]"
    refuse(observed_model, matching_guide, message)

    def wrong_site(x):
        ebm.auxiliary("y", target=1.0)

    refuse(
        observed_model, wrong_site, r"auxiliary\(\.\.\.\) for sites with an objective \(\['x'\]\)"
    )


def test_nan_names_the_site_where_it_can():
    def model(x):
        energy = eqx_module("energy", Bowl(jnp.array(jnp.nan)))
        with numpyro.plate("data", len(x)):
            numpyro.sample("x", prior(energy), obs=x)

    svi = SVI(model, empty_guide, optax.adam(0.1), ebm.EnergyELBO(DISCREPANCY))
    with pytest.raises(ValueError, match="finite energies at site 'x'"):
        svi.evaluate(svi.init(random.key(0), X), X)


def test_energies_do_not_belong_in_guides():
    def guide(x):
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", prior(bowl()))

    refuse(latent_model, guide, "EnergyBased at site 'z' of the guide")


def test_energies_do_not_belong_in_mixtures():
    def model(x):
        components = prior(bowl()).expand((3,))
        with numpyro.plate("data", len(x)):
            mixing = dist.Categorical(jnp.ones(3) / 3)
            numpyro.sample("x", dist.MixtureSameFamily(mixing, components), obs=x)

    refuse(model, empty_guide, "normalized components of MixtureSameFamily")


def test_energies_do_not_belong_under_classes():
    def model(x):
        energy = eqx_module("energy", bowl())
        with numpyro.plate("data", len(x)):
            kind = numpyro.sample(
                "kind", dist.Categorical(jnp.ones(3) / 3), infer={"enumerate": "parallel"}
            )
            base = dist.Normal(kind[:, None] * jnp.ones(2), 1.0).to_event(1)
            numpyro.sample("x", ebm.EnergyBased(energy, base), obs=x)

    with pytest.raises(ValueError, match="site 'x' .*dependence on the latent variable 'kind'"):
        fit(model, empty_guide, ebm.EnergyELBO(DISCREPANCY, TraceGraph_ELBO()), X)


def test_batch_dimensions_are_plates():
    def model(x):
        numpyro.sample("x", prior(eqx_module("energy", bowl())).expand((8,)), obs=x)

    refuse(model, empty_guide, r"'x' to be a plate, got batch shape \(8,\) with no plate at -1")


def test_objectives_for_sites_that_are_not_there():
    message = r"energy-based sites of the model \(\['z'\]\), got 'y'"
    refuse(latent_model, mean_field_guide, message, {"y": DISCREPANCY})


@pytest.mark.parametrize("where", ["energy", "base"])
def test_a_dependence_on_another_latent_is_doubly_intractable(where):
    def model(x):
        energy = eqx_module("energy", bowl())
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with numpyro.plate("data", len(x)):
            if where == "energy":
                fn = prior(lambda x: scale * energy(x))
            else:
                fn = ebm.EnergyBased(energy, dist.Normal(jnp.zeros(2), scale).to_event(1))
            numpyro.sample("x", fn, obs=x)

    def guide(x):
        numpyro.sample("scale", dist.LogNormal(numpyro.param("loc", 0.0), 0.1))

    refuse(model, guide, "dependence on the latent variable 'scale'")


def test_a_latent_that_moves_the_value_alone_is_no_harm():
    def model(x):
        shift = numpyro.sample("shift", dist.Normal(0.0, 1.0))
        energy = eqx_module("energy", bowl())
        moved = dist.transforms.AffineTransform(shift, 1.0)
        with numpyro.plate("data", len(x)):
            fn = dist.TransformedDistribution(prior(energy).expand((len(x),)), moved)
            numpyro.sample("x", fn, obs=x)

    result = fit(model, AutoNormal(model), ebm.EnergyELBO(DISCREPANCY), X, num_steps=2)
    assert result.params["energy$params"].weight != 0.5


def test_wrong_arguments():
    with pytest.raises(TypeError, match="objective with a `loss`, got float"):
        ebm.EnergyELBO(0.25)
    with pytest.raises(TypeError, match="ELBO of NumPyro, got str"):
        ebm.EnergyELBO(DISCREPANCY, "Trace")
    with pytest.raises(ValueError, match="`num_normalizer_samples`"):
        ebm.EnergyELBO(DISCREPANCY, num_normalizer_samples=-1)
    with pytest.raises(ValueError, match="sum_sites=True, got False"):
        ebm.EnergyELBO(DISCREPANCY, Trace_ELBO(sum_sites=False))
    with pytest.raises(ValueError, match="multi_sample_guide=False"):
        ebm.EnergyELBO(DISCREPANCY, Trace_ELBO(multi_sample_guide=True))


# --- parameters that nothing trains ---

UNSEEN = bowl()


@pytest.mark.parametrize(
    ("energy", "message"),
    [
        (UNSEEN, "No optimizer will see these parameters of site 'z': weight; register"),
        (
            lambda z: UNSEEN(z),
            "No optimizer will see these parameters of site 'z': UNSEEN.weight; register",
        ),
    ],
    ids=["module", "closure"],
)
def test_parameters_that_no_optimizer_sees(energy, message):
    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", prior(energy))
            numpyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    with pytest.warns(UserWarning, match=message):
        fit(model, mean_field_guide, ebm.EnergyELBO(DISCREPANCY), X)
    # This says that it is meant.
    fit(model, mean_field_guide, ebm.EnergyELBO({}), X)


def test_a_site_without_objective_that_could_be_trained():
    def model(x):
        one, two = eqx_module("one", bowl()), eqx_module("two", bowl())
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", prior(one))
            numpyro.sample("x", prior(two), obs=x)

    with pytest.warns(UserWarning, match="Nothing trains"):
        fit(model, mean_field_guide, ebm.EnergyELBO({"z": DISCREPANCY}), X)
