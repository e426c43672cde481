import math
from contextlib import nullcontext

import numpy as np
import pytest

from helpers.objectives.step import assert_mean
from helpers.oracles import PSEUDO_SPHERICAL_VALUES, pseudo_spherical_gradient

pytestmark = pytest.mark.usefixtures("float64")

X, DRAWS = (np.random.default_rng(0).normal(size=size) for size in (6, 5))
# From -1/2 down the weights have no variance.
GAMMAS = [-0.2, 0.5, 1.0]
START = {"mu": 0.4, "log_scale": math.log(1.2), "constant": 3.0}
STANDARD = {"mu": 0.0, "log_scale": 0.0, "constant": 0.0}


def gaussian(host, p):
    """E(x) = (x - mu)^2 / (2 s^2) + constant."""
    scale = host.xp.exp(p["log_scale"])
    return lambda x: 0.5 * ((x - p["mu"]) / scale) ** 2 + p["constant"]


def flat(host):
    return lambda p: host.ebm.EnergyBased(gaussian(host, p), event_shape=())


def step(host, objective, params=START, prior=None, x=X, draws=DRAWS, counts=None, **options):
    attached = {"chains": host.array(draws)}
    if counts is not None:
        attached["weights"] = host.array(counts)
    prior = prior or flat(host)
    return host.step(objective, prior, params, x, lambda p: attached, **options)


def assert_same(found, expected, names, **tolerances):
    np.testing.assert_allclose(found.loss, expected.loss, **tolerances)
    for name in names:
        ours, theirs = (s.gradients[name] for s in (found, expected))
        np.testing.assert_allclose(ours, theirs, **tolerances)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradient_is_the_closed_form(host, gamma):
    noise, objective = np.random.default_rng(1).normal(size=(2, 40, 1000)), None
    objective = host.ebm.PseudoSpherical(gamma)
    losses, gradients = host.blocks(
        objective, flat(host), START, noise[0] - 0.3, chains=0.4 + 1.2 * noise[1]
    )
    assert losses.shape == (40, 1000)
    np.testing.assert_allclose(gradients["constant"], 0.0, atol=1e-12)
    expected = pseudo_spherical_gradient(gamma, 0.4, math.log(1.2))
    found = np.stack([gradients["mu"], gradients["log_scale"]], -1)
    assert_mean(found, expected, 0.02)
    if gamma in PSEUDO_SPHERICAL_VALUES:
        assert expected[0] == pytest.approx(PSEUDO_SPHERICAL_VALUES[gamma], abs=1e-6)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_value(host, gamma):
    found = step(host, host.ebm.PseudoSpherical(gamma), STANDARD)
    means = [np.exp(-gamma * y**2 / 2).mean() for y in (DRAWS, X)]
    np.testing.assert_allclose(found.loss, np.full(6, math.log(means[0] / means[1]) / gamma))


def test_constants_of_the_energy_drop_out(host):
    objective = host.ebm.PseudoSpherical(0.7)
    near, far = step(host, objective), step(host, objective, START | {"constant": 1e3})
    assert_same(far, near, START, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("gamma", "scale"), [(1e-8, 1.2), (0.5, 1e6)])
def test_equal_weights_are_contrastive_divergence(host, gamma, scale):
    """Value by value, for gamma near zero or an energy that is almost constant."""
    params, weights = START | {"log_scale": math.log(scale)}, np.arange(6.0)
    found = step(host, host.ebm.PseudoSpherical(gamma), params, weights=weights)
    expected = step(host, host.ebm.ContrastiveDivergence(), params, weights=weights)
    assert found.loss.mean() == pytest.approx(expected.loss.mean(), abs=1e-6)
    names = "mu", "log_scale"
    ours, theirs = (np.array([s.gradients[name] for name in names]) for s in (found, expected))
    np.testing.assert_allclose(ours, theirs, atol=1e-7 * abs(theirs).max())


def test_base_is_part_of_the_energy(host):
    def base(p):
        return host.dist.Normal(p["loc"], 2.0)

    def with_base(p):
        return host.ebm.EnergyBased(gaussian(host, p), base(p))

    def absorbed(p):
        energy, density = gaussian(host, p), base(p)
        return host.ebm.EnergyBased(lambda x: energy(x) - density.log_prob(x), event_shape=())

    objective, params = host.ebm.PseudoSpherical(0.5), START | {"loc": 0.3}
    found, expected = (step(host, objective, params, prior) for prior in (with_base, absorbed))
    assert_same(found, expected, params, atol=1e-12)


def test_energy_penalty(host):
    without, penalized = (
        step(host, host.ebm.PseudoSpherical(0.5, energy_penalty=penalty), STANDARD)
        for penalty in (0.0, 0.2)
    )
    expected = 0.05 * (X**4 + (DRAWS**4).mean())
    np.testing.assert_allclose(penalized.loss - without.loss, expected)


def test_gaussian_is_recovered(host):
    def model(x):
        start = {"mu": 0.5, "log_scale": math.log(2.0), "constant": 0.0}
        p = {name: host.ppl.param(name, host.array(value)) for name, value in start.items()}
        with host.ppl.plate("data", len(x)):
            base = host.dist.Normal(host.array(0.0), 2.0)
            host.ppl.sample("x", host.ebm.EnergyBased(gaussian(host, p), base), obs=x)

    def guide(x):
        options = {"sampler": host.ebm.MALA(0.4), "num_steps": 3}
        host.ebm.attach("x", chains=host.ebm.PersistentChains(512, (), **options))

    loss = host.ebm.EnergyELBO(host.ebm.PseudoSpherical(0.5), num_normalizer_samples=0)
    x = -0.3 + 0.8 * np.random.default_rng(1).normal(size=1024)
    path = host.fit(model, guide, loss, host.array(x), num_steps=200).path
    precision = np.exp(-2 * path["log_scale"])
    mean = (precision * path["mu"] / (precision + 0.25))[-100:].mean()
    # Over seeds they have deviations of 0.008 and 2 %.
    assert mean == pytest.approx(x.mean(), abs=0.032)
    assert (precision + 0.25)[-100:].mean() == pytest.approx(1 / x.var(), rel=0.08)


def test_metrics(host):
    """Energies 0, 0 and log 4 have weights 1, 1 and 1/2; draws have one more of energy 0."""
    x = np.array([0.0, 0.0, math.sqrt(2 * math.log(4.0))])
    found = step(host, host.ebm.PseudoSpherical(0.5), STANDARD, x=x, draws=np.array([0.0, *x]))
    assert found.metrics["effective_values"] == pytest.approx(2.5**2 / 2.25)
    assert found.metrics["effective_negatives"] == pytest.approx(3.5**2 / 3.25)
    assert found.metrics["energy_gap"] == pytest.approx(math.log(4.0) * (1 / 4 - 1 / 3))


def test_one_base_for_all_values(host):
    base = host.dist.Normal(host.array(np.zeros(3)), 1.0)
    prior = host.ebm.EnergyBased(lambda x: x**2, base)
    with pytest.raises(ValueError, match=r"one distribution for all .* of batch shape \(3,\)"):
        host.loss(host.ebm.PseudoSpherical(0.5), prior, X[:3])


# --- values that do not count, or count twice ---


def trained(host, x, handler):
    """Path of the parameters and metrics at the end, with a handler around the site."""

    def model(x):
        p = {name: host.ppl.param(name, host.array(value)) for name, value in START.items()}
        base = host.dist.Normal(host.array(0.0), 2.0)
        with host.ppl.plate("data", len(x)), handler():
            host.ppl.sample("x", host.ebm.EnergyBased(gaussian(host, p), base), obs=x)

    def guide(x):
        host.ebm.attach("x", chains=host.array(DRAWS))

    host.forget()
    loss = host.ebm.EnergyELBO(host.ebm.PseudoSpherical(0.5), num_normalizer_samples=0)
    found = host.fit(model, guide, loss, host.array(x), num_steps=5)
    return found.path, host.metrics(loss, model, guide, host.array(x), found)


def assert_same_training(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("mu", "log_scale", "effective_values", "energy_gap", "energy_scale"):
            if name in theirs:
                np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, err_msg=name)


def test_masked_values_are_dropped(host):
    mask = np.arange(6) % 3 > 0
    given = np.where(mask, X, 50.0)
    found = trained(host, given, lambda: host.mask(mask=host.xp.asarray(mask)))
    expected = trained(host, X[mask], nullcontext)
    assert_same_training(found, expected)
    assert found[1]["objective"] == pytest.approx(expected[1]["objective"])


def test_a_value_of_scale_two_counts_twice(host):
    found = trained(host, X, lambda: host.scaling(scale=host.array([1, 2, 1, 1, 2, 1])))
    path, metrics = trained(host, np.append(X, X[[1, 4]]), nullcontext)
    # These two say how many values there are.
    del metrics["effective_values"], metrics["energy_scale"]
    assert_same_training(found, (path, metrics))


def test_nothing_counts(host):
    found = step(host, host.ebm.PseudoSpherical(0.5), counts=np.zeros(6))
    assert np.isfinite(found.loss).all()
    assert all(np.isfinite(gradient) for gradient in found.gradients.values())


def test_values_that_do_not_count_may_be_nan(host):
    mask, x = np.arange(6) > 1, np.where(np.arange(6) > 1, X, np.nan)
    found = step(host, host.ebm.PseudoSpherical(0.5), x=x, counts=mask)
    expected = step(host, host.ebm.PseudoSpherical(0.5), x=X[mask])
    np.testing.assert_allclose(found.loss[mask], expected.loss)
    assert found.metrics == pytest.approx(expected.metrics)
