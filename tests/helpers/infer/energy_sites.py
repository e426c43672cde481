import re

import numpy as np
import pytest
from scipy.stats import norm

from helpers.infer.check import scaled
from helpers.infer.elbo import (
    PLAIN_X,
    X,
    discrepancy,
    fit,
    latent,
    observed,
    plain_guide,
    plain_model,
    step,
)
from pyro_ebm.core.objectives.loss import Loss

# --- attached parts ---


class Matched:
    """Objective that pulls a learner to the mean of the values and the energy nowhere."""

    def loss(self, *args, target):
        *_, distribution, value = args  # NumPyro gives a random key first.
        return Loss((target - value.mean(-1)) ** 2 + 0.0 * distribution.potential(value), {})


def matching_guide(host):
    return lambda x: host.ebm.attach("x", target=host.ppl.param("target", host.array(0.0)))


@pytest.mark.parametrize("name", ["Trace x3", "Trace x3 in turn", "TraceGraph x2", "Renyi x2"])
def test_attached_parameters_are_trained(host, name):
    loss = host.ebm.EnergyELBO({"x": Matched()}, host.STOCK[name](), num_normalizer_samples=0)
    found = fit(host, observed(host), matching_guide(host), loss, num_steps=100)
    assert found.params["target"] == pytest.approx(X.mean(), abs=0.02)


def test_attach_has_no_effect_elsewhere(host):
    def guide(x):
        plain_guide(host)(x)
        matching_guide(host)(x)

    host.ebm.attach("x", target=1.0)
    fit(host, plain_model(host), guide, host.infer.Trace_ELBO(), PLAIN_X)
    params = {"target": host.array(0.0)}
    model, guide, x = observed(host), matching_guide(host), host.array(X)
    assert host.predict(model, guide, x, params=params, num_samples=3)["x"].shape == (3, 8, 2)


# --- refusals ---


def doubly_intractable(host, where):
    def model(x):
        scaled(host, where)(x[:6])

    def guide(x):
        loc = host.ppl.param("loc", host.array(0.0))
        host.ppl.sample("scale", host.dist.LogNormal(loc, 0.1))
        host.ppl.sample("shift", host.dist.Normal(loc, 0.1))

    return model, guide


def mixture(host):
    mixing = host.dist.Categorical(host.array(np.ones(3) / 3))

    def make_prior(energy):
        return host.dist.MixtureSameFamily(mixing, host.prior(energy).expand((3,)))

    return host.observed_model(host.Bowl(), make_prior), host.empty_guide


def attaching_model(host):
    def model(x):
        host.ebm.attach("x", critic=1.0)
        observed(host)(x)

    return model


def energy_guide(host):
    def guide(x):
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("z", host.prior(host.frozen(host.Bowl())))

    return guide


REFUSALS = {
    "guide": (lambda h: (latent(h), energy_guide(h)), "EnergyBased at site 'z' of the guide"),
    "mixture": (mixture, "components of MixtureSameFamily"),
    "energy": (lambda h: doubly_intractable(h, "energy"), "latent variable 'scale'"),
    "base": (lambda h: doubly_intractable(h, "base"), "latent variable 'scale'"),
    "objective": (
        lambda h: (latent(h), h.mean_field_guide, {"y": discrepancy(h)}),
        r"the model \(\['z'\]\), got 'y'",
    ),
    "missing": (
        lambda h: (observed(h), h.empty_guide, Matched()),
        r"attach \['target'\] to site 'x' .*, got nothing",
    ),
    "unwanted": (
        lambda h: (observed(h), matching_guide(h)),
        r"attach nothing to site 'x' .*'target'",
    ),
    "typo": (
        lambda h: (observed(h), h.attaching("typo", target=1.0)),
        r"attach\(...\) for sites with an objective \(\['x'\]\), got 'typo'",
    ),
    "typo of chains": (
        lambda h: (observed(h), h.attaching("typo", chains=h.ebm.PersistentChains(4, (2,)))),
        r"attach\(...\) for sites with an objective \(\['x'\]\), got 'typo'",
    ),
    "attach in model": (
        lambda h: (attaching_model(h), h.empty_guide),
        r"attach\('x', ...\) in the guide, got it in",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(host, name):
    make, message = REFUSALS[name]
    with pytest.raises(ValueError, match=message):
        step(host, *make(host))


def test_energies_under_enumerated_classes_are_refused(host):
    def model(x):
        registered = host.register("energy", energy)
        with host.ppl.plate("data", len(x)):
            mixing = host.dist.Categorical(host.array(np.ones(3) / 3))
            kind = host.ppl.sample("kind", mixing, infer={"enumerate": "parallel"})
            base = host.dist.Normal(kind[..., None] * host.xp.ones(2), 1.0).to_event(1)
            host.ppl.sample("x", host.ebm.EnergyBased(registered, base), obs=x)

    energy = host.Bowl()
    message = (
        "every batch dimension of .*'x' to be a plate|dependence on the latent variable 'kind'"
    )
    elbo = host.ELBOS.get("TraceEnum", host.ELBOS["TraceGraph"])()
    with pytest.raises(ValueError, match=message):
        step(host, model, host.empty_guide, elbo=elbo)


# --- parameters that nothing trains ---


@pytest.mark.parametrize("is_hidden", [False, True])
def test_parameters_that_no_optimizer_updates_are_named(host, is_hidden):
    energy = host.Bowl()
    hidden = (lambda z: energy(z)) if is_hidden else energy
    model = host.latent_model(None, lambda _: host.prior(hidden))
    named = re.escape(host.HIDDEN if is_hidden else "weight")
    with pytest.warns(UserWarning, match=f"No optimizer will update .* of site 'z': {named}; "):
        step(host, model, host.mean_field_guide)


def test_an_energy_without_parameters_is_not_warned_of(host):
    prior = host.prior(lambda z: (z**2).sum(-1))
    step(host, host.latent_model(None, lambda _: prior), host.mean_field_guide)


def test_a_site_without_objective_is_named(host):
    def model(x):
        one, two = host.register("one", energies[0]), host.register("two", energies[1])
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("z", host.prior(one))
            host.ppl.sample("x", host.prior(two), obs=x)

    energies = host.Bowl(), host.Bowl()
    message = "'z': weight; EnergyELBO has no objective for this site|Nothing trains"
    with pytest.warns(UserWarning, match=message):
        found = step(host, model, host.mean_field_guide, {"x": discrepancy(host)})
    assert found.params["one.weight"] == 0.5
    assert found.params["two.weight"] != 0.5


# --- values that an objective sees ---


@pytest.mark.parametrize("how", ["distribution", "handler", "context"])
def test_masked_rows_do_not_tune_step_sizes(host, how):
    """Whatever stands in them: start of chains for a contrastive divergence is another row."""
    data = np.random.default_rng(0).normal(size=(200, 2)) + 1.0
    is_counted = np.arange(200) % 10 != 0

    def model(x):
        energy, mask = host.register("energy", host.Bowl()), host.array(is_counted)
        law = host.prior(energy)
        if how == "context":
            law = host.ebm.EnergyBased(lambda x, c: c * energy(x), law.base, context=x[:, 0] ** 2)
        law = law.mask(mask) if how == "distribution" else law
        with host.ppl.plate("data", 200), host.mask(mask=mask if how != "distribution" else True):
            host.ppl.sample("x", law, obs=x)

    loss, weights = host.ebm.EnergyELBO(host.ebm.ContrastiveDivergence()), []
    for fill in (1.0, -999.0, 1e6):
        host.start_again()
        x, options = np.where(is_counted[:, None], data, fill), {"optimizer": host.sgd(1e-3)}
        found = fit(host, model, host.empty_guide, loss, x, **options)
        weights.append(found.params["energy.weight"])
    assert weights[0] != 0.5
    assert weights[1:] == pytest.approx([weights[0]] * 2, rel=1e-6)


@pytest.mark.parametrize("name", ["ContrastiveDivergence", "ScoreMatching"])
def test_masked_rows_of_other_laws_stay(host, name):
    """Each has a base of its own, in whose support no other row lies."""
    low, mask = 10 * np.arange(4.0), np.array([True, True, False, True])

    def model(x):
        base = host.dist.Uniform(host.array(low), host.array(low + 1))
        registered = host.register("energy", host.Bowl(0.01))
        with host.ppl.plate("data", 4), host.mask(mask=host.array(mask)):
            host.ppl.sample("x", host.ebm.EnergyBased(registered, base), obs=x)

    loss, options = host.ebm.EnergyELBO(getattr(host.ebm, name)()), {"optimizer": host.sgd(1e-4)}
    found = fit(host, model, host.empty_guide, loss, low + 0.4, **options)
    assert np.isfinite(found.params["energy.weight"])


class Plain:
    """Objective whose loss is the energy at the value."""

    def loss(self, *args):
        *_, distribution, value = args
        return Loss(distribution.energy(value), {})


def test_values_are_constant_after_transforms(host):
    """Of x = l + 2 u, with the parameter l: u is a constant for the objective."""

    def model(x):
        loc = host.ppl.param("loc", host.array(0.3))
        energy = host.ebm.EnergyBased(lambda u: u**2, host.dist.Normal(0.0, 1.0))
        affine = host.dist.transforms.AffineTransform(loc, 2.0)
        host.ppl.sample("x", host.dist.TransformedDistribution(energy, [affine]), obs=x)

    loss = host.ebm.EnergyELBO(Plain(), num_normalizer_samples=0)
    options = {"optimizer": host.sgd(1.0)}
    loc = fit(host, model, host.empty_guide, loss, 1.3, **options).params["loc"]
    # u = .5; d/dl of u^2 + u^2 / 2, once.
    assert loc == pytest.approx(0.3 + 3 * 0.5 / 2, rel=1e-5)


@pytest.mark.parametrize("has_context", [False, True])
def test_one_value_for_many_laws_is_one_of_each(host, has_context):
    """The same noise, and so the same gradient, as for copies of the value."""
    rates = host.array(np.linspace(0.1, 4.0, 7))

    def model(x):
        a = host.ppl.param("a", host.array(0.7))
        energy = (lambda v, c: a * c * v**2) if has_context else lambda v: a * v**2
        base = host.dist.Normal(0.0, 1.0 if has_context else rates)
        with host.ppl.plate("rows", 2, dim=-2), host.ppl.plate("laws", 7, dim=-1):
            law = host.ebm.EnergyBased(energy, base, context=rates if has_context else None)
            host.ppl.sample("x", law, obs=x)

    loss = host.ebm.EnergyELBO(host.ebm.ContrastiveDivergence(), num_normalizer_samples=0)
    one, copies = host.array([[1.3], [-0.4]]), np.repeat([[1.3], [-0.4]], 7, axis=1)
    found, expected = (
        host.loss_and_gradients(loss, model, host.empty_guide, x) for x in (one, host.array(copies))
    )
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1]["a"] == pytest.approx(expected[1]["a"], rel=1e-5)


# --- the reported number ---


@pytest.mark.parametrize("has_context", [False, True])
def test_draws_of_a_base_in_one_dimension_are_in_strata(host, has_context):
    """With contexts the base is expanded; 64 independent draws a row are wrong by .1."""
    number = 50 if has_context else 1
    context = host.array(np.linspace(-1, 1, number)) if has_context else None

    def model(x):
        energy = (lambda x, c: 2 * (x - c) ** 2 - x**2 / 2) if has_context else lambda x: 1.5 * x**2
        with host.ppl.plate("data", number):
            law = host.ebm.EnergyBased(energy, host.dist.Normal(0.0, 1.0), context=context)
            host.ppl.sample("x", law, obs=x)

    loss = host.ebm.EnergyELBO(discrepancy(host), num_normalizer_samples=64)
    x = np.linspace(-1, 1, number) + 0.3
    found = fit(host, model, host.empty_guide, loss, x).losses[0]
    exact = -norm.logpdf(x, np.linspace(-1, 1, number) if has_context else 0.0, 0.5).sum()
    assert found / number == pytest.approx(exact / number, abs=5e-3 if has_context else 0.04)
