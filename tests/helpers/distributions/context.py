"""Energies with a context: x | c ~ exp(-exp(1.5 c) x^2 / 2) N(0, 9), a log-normalizer a row."""

import copy

import numpy as np
import pytest

CONTEXT = np.linspace(-1.0, 1.0, 5)
RATE = np.exp(1.5 * CONTEXT)
LOG_NORMALIZERS = -0.5 * np.log(1 + 9 * RATE)


def conditional(host, context=CONTEXT, base=None, **options):
    def energy(x, c):
        return host.xp.exp(1.5 * c) * x[:, 0] ** 2 / 2

    base = host.normal((1,), 0.0, 3.0) if base is None else base
    return host.ebm.EnergyBased(energy, base, context=host.array(context), **options)


def log_prob(x, rate=RATE):
    return -(rate + 1 / 9) * x**2 / 2 - np.log(3 * np.sqrt(2 * np.pi))


# --- rows and shapes ---


def test_every_row_has_its_context(host):
    prior, x = conditional(host), np.random.default_rng(0).normal(size=(7, 5))
    assert prior.batch_shape == (5,)
    found = host.to_numpy(prior.log_prob(host.array(x[..., None])))
    np.testing.assert_allclose(found, log_prob(x), rtol=1e-5)
    # One value for all contexts, and more plates to the left.
    found = host.to_numpy(prior.log_prob(host.array([0.7])))
    np.testing.assert_allclose(found, log_prob(0.7), rtol=1e-5)
    expanded = copy.deepcopy(prior.expand((2, 5)))
    found = host.to_numpy(expanded.log_prob(host.array(x[:4, None, :, None])))
    np.testing.assert_allclose(found, np.repeat(log_prob(x[:4, None]), 2, 1), rtol=1e-5)
    assert host.without_plates(expanded).batch_shape == (5,)


def test_contexts_of_several_arrays_of_any_shape(host):
    def energy(x, c):
        assert c["image"].shape == (len(x), 4, 4)
        return c["label"] * x.sum(-1) + c["image"].sum((-1, -2))

    context = {"label": host.array(np.arange(3.0)), "image": host.array(np.ones((3, 4, 4)))}
    prior = host.ebm.EnergyBased(energy, event_shape=(2,), context=context)
    assert prior.batch_shape == host.without_plates(prior).batch_shape == (3,)
    found = prior.log_prob(host.array(np.ones((6, 3, 2))))
    np.testing.assert_allclose(found, np.tile(-2 * np.arange(3.0) - 16, (6, 1)), rtol=1e-6)


def test_number_of_batch_dimensions(host):
    def energy(x, c):
        return (x * c).sum(-1)

    context, row = host.array(np.ones((3, 4, 2))), host.normal((2,))
    grid = host.ebm.EnergyBased(energy, row, context=context, context_batch_ndims=2)
    assert grid.batch_shape == (3, 4)
    base = row.expand((3, 4))
    assert host.ebm.EnergyBased(energy, base, context=context).batch_shape == (3, 4)
    one = host.ebm.EnergyBased(energy, row, context=host.array([1.0, 2.0]), context_batch_ndims=0)
    assert one.batch_shape == ()
    np.testing.assert_allclose(
        one.potential(host.array([[1.0, 1.0]])) - one.potential(host.array([[-1.0, -1.0]])),
        [6.0],
        rtol=1e-5,
    )


# --- draws and log-normalizers ---


@pytest.mark.parametrize("method", ["importance", "annealed", "grid"])
def test_every_context_has_its_log_normalizer(host, method):
    options = {} if method == "grid" else {"num_samples": 4000}
    found = host.log_normalizer(conditional(host), method=method, **options)
    estimate = host.to_numpy(found.estimate)
    np.testing.assert_allclose(estimate, LOG_NORMALIZERS, atol=0.12)
    if method == "annealed":
        np.testing.assert_allclose(estimate, LOG_NORMALIZERS, atol=0.05)
        assert np.all(host.to_numpy(found.lower) - 0.05 < LOG_NORMALIZERS)
        assert np.all(host.to_numpy(found.upper) + 0.05 > LOG_NORMALIZERS)


def test_draws_have_their_context(host):
    prior = conditional(host, sampler=host.ebm.MALA(0.2))
    variance = 1 / (RATE + 1 / 9)
    draws = host.sample(prior, (2000,))
    assert draws.shape == (2000, 5, 1)
    np.testing.assert_allclose(draws.var(0)[:, 0], variance, rtol=0.2)
    chains = host.run_chains(host.ebm.MALA(0.2), prior, num_samples=500, num_warmup=200)
    assert chains.samples.shape == (4, 500, 5, 1)
    np.testing.assert_allclose(host.to_numpy(chains.samples).var((0, 1))[:, 0], variance, rtol=0.25)


def test_latent_space_of_a_generator(host):
    latent = host.normal((1,))
    base = host.ebm.Pushforward(latent, lambda z: 2 * z)
    prior = conditional(host, base=base)
    z = host.array(np.ones((5, 1)))
    expected = 2 * RATE + 0.5 + np.log(2 * np.pi) / 2
    np.testing.assert_allclose(host.to_numpy(prior.latent.potential(z)), expected, rtol=1e-5)
    assert host.sample(prior).shape == (5, 1)


@pytest.mark.parametrize("shape", [(), (2,)])
def test_latent_space_of_a_transform(host, shape):
    def energy(x, c):
        return c * host.xp.log(x).reshape(len(x), -1).sum(-1)

    base = host.dist.LogNormal(host.array(np.zeros(shape)), 1.0).to_event(len(shape))
    prior = host.ebm.EnergyBased(energy, base, context=host.array(CONTEXT))
    z = np.full((5, *shape), 0.5)
    expected = (0.5 * CONTEXT + 0.125 + np.log(2 * np.pi) / 2) * z[0].size
    found = host.to_numpy(prior.latent.potential(host.array(z)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# --- errors ---


@pytest.mark.parametrize(
    ("context", "options", "error", "message"),
    [
        (np.ones(4), {"batch": 5}, ValueError, r"`context` of the batch shape of the base, \(5,\)"),
        (np.ones(()), {}, ValueError, r"with 1 batch dimensions in front .*got shape \(\)"),
        (np.ones(5), {"context_batch_ndims": 2}, ValueError, r"2 batch dimensions.*shape \(5,\)"),
        (np.ones(5), {"context_batch_ndims": -1}, ValueError, "`context_batch_ndims` to be an int"),
    ],
)
def test_contexts_that_do_not_fit(host, context, options, error, message):
    options = dict(options)
    base = host.normal((1,)).expand((options.pop("batch"),)) if "batch" in options else None
    with pytest.raises(error, match=message):
        conditional(host, context, base, **options)


def test_values_and_energies_that_do_not_fit(host):
    with pytest.raises(ValueError, match=r"broadcasts with that of the context, \(5,\), got \(4,"):
        conditional(host).potential(host.array(np.ones((4, 1))))
    base, context = host.normal((1,)), host.array(CONTEXT)
    with pytest.raises(TypeError, match="function of the value and its context, got one of"):
        host.ebm.EnergyBased(lambda x: x[:, 0], base, context=context)
    with pytest.raises(TypeError, match=r"function of the value alone \(no `context`\), got one"):
        host.ebm.EnergyBased(lambda x, c: x[:, 0] * c, base)
    with pytest.raises(TypeError, match="`context` to be .*, got str"):
        host.ebm.EnergyBased(lambda x, c: x[:, 0] * c, base, context="labels")


def test_an_expansion_must_hold_the_present_shape(host):
    with pytest.raises(ValueError, match=r"Cannot broadcast distribution of shape \(5,\) to"):
        conditional(host).expand((2, 4))
