"""Energies between the parts of a Joint: theta ~ N(0, 1), x | theta ~ N(theta, s^2) exactly."""

import pickle

import numpy as np
import pytest

SCALE, BASE_SCALE = 0.5, 2.0
rng = np.random.default_rng(0)
THETA, X = rng.normal(size=(3, 2)), rng.normal(size=(4, 3, 2))


def square(x):
    return (x**2).sum(-1)


def log_likelihood(theta, x):
    return -square(x - theta) / (2 * SCALE**2) - 2 * np.log(SCALE * np.sqrt(2 * np.pi))


def energy(theta, x):
    """Minus the log-ratio of likelihood and base: log Z is zero for every theta."""
    ratio = 2 * np.log(BASE_SCALE / SCALE)
    return square(x - theta) / (2 * SCALE**2) - square(x) / (2 * BASE_SCALE**2) - ratio


def base(host):
    return host.ebm.Joint(theta=host.normal(), x=host.normal(scale=BASE_SCALE))


def joint(host, weight=1.0):
    return host.ebm.EnergyBased(lambda theta, x: weight * energy(theta, x), base(host))


def pairs(host):
    """Vectors of all pairs."""
    return base(host).join(theta=host.array(THETA), x=host.array(X))


# --- the base ---


def test_parts_of_any_shape_and_support(host):
    """An energy gets rows of them; values come back from vectors; bounds differ between rows."""

    def product(scale, share, theta, label):
        assert [x.shape[1:] for x in (scale, share, theta, label)] == [(), (3,), (2, 2), ()]
        return scale * share[:, 0] * theta.sum((-1, -2)) * label

    high = np.arange(1.0, 21.0).reshape(5, 2, 2)
    parts = host.ebm.Joint(
        scale=host.dist.LogNormal(0.3, 0.5),
        share=host.dist.Dirichlet(host.array(np.ones(3))),
        theta=host.dist.Uniform(host.array(0 * high), host.array(high)).to_event(2),
    )
    assert (parts.batch_shape, parts.event_shape) == ((5,), (1 + 2 + 4,))
    value = host.array(host.sample(parts, (6,)))
    values = parts.split(value)
    x = {name: host.to_numpy(value) for name, value in values.items()}
    assert (x["theta"] < high).all()
    np.testing.assert_allclose(host.to_numpy(parts.join(**values)), value, rtol=1e-3, atol=1e-4)
    prior = host.ebm.EnergyBased(product, parts, context=host.array(np.arange(5.0)))
    found = host.to_numpy(prior.potential(value)) + host.to_numpy(parts.log_prob(value))
    expected = x["scale"] * x["share"][..., 0] * x["theta"].sum((-1, -2)) * np.arange(5.0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_density_is_over_unconstrained_space(host):
    parts = host.ebm.Joint(scale=host.dist.LogNormal(0.3, 0.5), x=host.normal())
    value = host.array(rng.normal(size=(7, 3)))
    expected = host.dist.Normal(0.3, 0.5).log_prob(value[:, 0]) + host.normal().log_prob(
        value[:, 1:]
    )
    found = host.to_numpy(parts.log_prob(value))
    np.testing.assert_allclose(found, host.to_numpy(expected), rtol=1e-5)


def test_part_that_was_not_joined(host):
    """Raw values are named, joined ones are not, wherever the law of the part lies."""
    scale = np.random.default_rng(1).gamma(50.0, size=64)
    share = np.random.default_rng(2).beta(2.0, 2.0, size=64)
    parts = host.ebm.Joint(
        x=host.normal(()),
        scale=host.dist.Gamma(host.array(50.0), 1.0),
        share=host.dist.Beta(host.array(2.0), 2.0),
    )
    values = {"x": np.zeros(64), "scale": scale, "share": share}
    joined = parts.join(**{name: host.array(value) for name, value in values.items()})
    assert parts._part_not_joined(joined) is None
    found = host.to_numpy(joined)
    for index, name in enumerate(["scale", "share"], start=1):
        raw = np.array(found)
        raw[:, index] = values[name]
        assert parts._part_not_joined(host.array(raw)) == name


OBJECTIVES = {
    "energy discrepancy": lambda ebm: ebm.EnergyDiscrepancy(variance=0.5, num_samples=3),
    "score matching": lambda ebm: ebm.ScoreMatching(),
    "contrastive divergence": lambda ebm: ebm.ContrastiveDivergence(
        init="data", sampler=ebm.Langevin(0.1), num_steps=3
    ),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_see_an_ordinary_vector(host, name):
    """The same noise makes the same loss as an energy of one vector."""
    scales = host.array([1.0, 1.0, BASE_SCALE, BASE_SCALE])
    flat = host.ebm.EnergyBased(
        lambda both: energy(both[:, :2], both[:, 2:]),
        host.dist.Normal(0 * scales, scales).to_event(1),
    )
    objective, value = OBJECTIVES[name](host.ebm), pairs(host)
    found, expected = (host.loss(objective, prior, value) for prior in (joint(host), flat))
    np.testing.assert_allclose(host.to_numpy(found), host.to_numpy(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["NoiseContrastive", "MaximumLikelihood"])
def test_objectives_draw_from_the_base(host, name):
    objective = getattr(host.ebm, name)(num_samples=5)
    loss = host.to_numpy(host.loss(objective, joint(host), pairs(host)))
    assert loss.shape == X.shape[:-1]
    assert np.isfinite(loss).all()


def test_log_normalizer(host):
    found = host.log_normalizer(joint(host), method="importance", num_samples=4000)
    assert float(found.estimate) == pytest.approx(0.0, abs=0.1)


# --- conditionals ---


def test_value_and_gradients(host):
    """Of the likelihood in theta and in x, batches broadcast; parameters are constants."""

    def total(weight, theta, x):
        return joint(host, weight).conditional(theta=theta).log_prob(x).sum()

    likelihood = joint(host).conditional(theta=host.array(THETA))
    assert (likelihood.batch_shape, likelihood.event_shape) == ((3,), (2,))
    found = host.to_numpy(likelihood.log_prob(host.array(X)))
    np.testing.assert_allclose(found, log_likelihood(THETA, X), rtol=1e-4)
    with host.untrained():
        of_weight, of_theta, of_x = host.gradients(total, 1.0, THETA, X)
    assert of_weight == 0.0
    np.testing.assert_allclose(of_theta, ((X - THETA) / SCALE**2).sum(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(of_x, -(X - THETA) / SCALE**2, rtol=1e-4, atol=1e-4)


def test_several_parts_are_given_or_left(host):
    def sum_of(a, b, c):
        return a + 10 * b[:, 0] + 100 * c

    prior = host.ebm.EnergyBased(
        sum_of, host.ebm.Joint(a=host.normal(()), b=host.normal((1,)), c=host.normal(()))
    )
    one = prior.conditional(c=host.array([3.0, 4.0]), b=host.array(np.ones((5, 1, 1))))
    assert (one.batch_shape, one.event_shape) == ((5, 2), ())
    ratio = host.to_numpy(one.potential(host.array(1.0)) + one.base.log_prob(host.array(1.0)))
    np.testing.assert_allclose(ratio, np.tile([311.0, 411.0], (5, 1)), rtol=1e-5)
    two = prior.conditional(b=host.array([2.0]))
    value = two.base.join(a=host.array(1.0), c=host.array(3.0))
    ratio = float(two.potential(value) + two.base.log_prob(value))
    assert ratio == pytest.approx(321.0, rel=1e-5)


def test_known_log_normalizer_and_pickles(host):
    prior = host.ebm.EnergyBased(energy, base(host)).normalized(host.array(-0.7))
    likelihood = pickle.loads(pickle.dumps(prior.conditional(theta=host.array(THETA))))
    found = host.to_numpy(likelihood.expand((4, 3)).log_prob(host.array(X)))
    np.testing.assert_allclose(found, log_likelihood(THETA, X) + 0.7, rtol=1e-4)


@pytest.mark.once
def test_draws_of_the_posterior(host):
    """The same energy gives theta from x."""
    posterior = joint(host).conditional(x=host.array(X[0]))
    chains = host.run_chains(host.ebm.MALA(0.2), posterior, num_samples=400, num_warmup=100)
    draws = host.to_numpy(chains.samples)
    np.testing.assert_allclose(draws.mean((0, 1)), X[0] / (1 + SCALE**2), atol=0.1)
    np.testing.assert_allclose(draws.var((0, 1)), SCALE**2 / (1 + SCALE**2), rtol=0.3)
