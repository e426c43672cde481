import math

import arviz as az
import numpy as np
import pytest

from helpers.linear_generator import (
    LOG_NORMALIZER,
    NOISE_SCALE,
    NOISY_VARIANCE,
    A,
    W,
    assert_variance,
    latent_variance,
    square,
    stretch,
)
from pyro_ebm.diagnostics import to_arviz

rng = np.random.default_rng(0)


def make_prior(host, inverse_temperature=1.0, *, step_size=0.5, noise_scale=0.0):
    return host.ebm.EnergyBased(
        square,
        host.ebm.Pushforward(host.normal((1,)), stretch, noise_scale=noise_scale),
        sampler=host.ebm.MALA(step_size),
        num_sampler_steps=60,
        inverse_temperature=inverse_temperature,
    )


# --- generator alone ---


@pytest.mark.parametrize(
    ("latent_shape", "event_shape"), [((), (2,)), ((3,), (2,)), ((2,), (4, 4))]
)
def test_shapes(host, latent_shape, event_shape):
    weight = host.array(rng.normal(size=(math.prod(latent_shape), math.prod(event_shape))))

    def generator(z):
        return (z.reshape(len(z), -1) @ weight).reshape(len(z), *event_shape)

    pushforward = host.ebm.Pushforward(host.normal(latent_shape), generator)
    assert pushforward.event_shape == event_shape
    assert host.sample(pushforward, (5, 3)).shape == (5, 3, *event_shape)
    assert host.sample(pushforward.expand((7,)), (2,)).shape == (2, 7, *event_shape)
    assert pushforward.support.check(host.array(host.sample(pushforward, (5,)))).all()
    prior = host.ebm.EnergyBased(lambda x: x.reshape(len(x), -1).sum(-1), pushforward)
    assert host.sample(prior.expand((7,))).shape == (7, *event_shape)


def test_noise(host):
    source = host.ebm.Pushforward(host.normal((1,)), stretch, noise_scale=NOISE_SCALE)
    assert_variance(host.sample(source, (20_000,)), NOISY_VARIANCE)


def test_gradients_of_draws(host):
    def mean(scale, loc):
        latent = host.dist.Normal(loc, 1.0).to_event(1)
        return host.rsample(host.ebm.Pushforward(latent, lambda z: scale * z), (1000,)).mean()

    expected = mean(host.array(2.0), host.array([1.0])).item() / 2
    by_scale, by_loc = host.gradients(mean, 2.0, [1.0])
    assert by_scale.item() == pytest.approx(expected, abs=1e-5)
    assert by_loc.item() == pytest.approx(2.0)


@pytest.mark.parametrize("form", ["itself", "expanded", "noiseless"])
def test_learned_noise(host, form):
    def draw(scale):
        source = host.ebm.Pushforward(host.normal((1,)), stretch, noise_scale=scale)
        assert source.is_implicit
        if form != "itself":
            source = source.expand((3,)) if form == "expanded" else source.noiseless
        return host.rsample(source, (20_000,))

    assert_variance(draw(host.array(NOISE_SCALE)), NOISY_VARIANCE)
    (slope,) = host.gradients(lambda scale: (draw(scale) ** 2).mean(), NOISE_SCALE)
    # The derivative of its square, with the error of a mean of 2 eps (x + eps / 2).
    assert slope == pytest.approx(2 * NOISE_SCALE, abs=4 * (11 / 20_000) ** 0.5)


@pytest.mark.parametrize("noise_scale", [0.0, NOISE_SCALE])
def test_no_density(host, noise_scale):
    pushforward = host.ebm.Pushforward(host.normal((1,)), stretch, noise_scale=noise_scale)
    assert pushforward.is_implicit
    with pytest.raises(NotImplementedError, match="Expected a Transform as the generator"):
        pushforward.log_prob(host.array([0.0]))


def test_density_of_a_transform(host):
    pushforward = host.ebm.Pushforward(host.normal(), host.AffineTransform(1.0, 2.0))
    value = host.array(rng.normal(size=(5, 2)))
    expected = host.normal((2,), 1.0, 2.0).log_prob(value)
    np.testing.assert_allclose(pushforward.log_prob(value), expected, rtol=1e-5)
    assert not pushforward.is_implicit
    prior = host.ebm.EnergyBased(square, pushforward)
    np.testing.assert_allclose(prior.log_prob(value), expected - square(value), rtol=1e-5)


def test_bad_arguments(host):
    pushforward, normal = host.ebm.Pushforward, host.normal((1,))
    with pytest.raises(TypeError, match="`latent` to be a distribution, got str"):
        pushforward("normal", stretch)
    with pytest.raises(TypeError, match="`generator` to be callable, got int"):
        pushforward(normal, 3)
    with pytest.raises(ValueError, match=r"`noise_scale` to be one number, got .*\(1,\)"):
        pushforward(normal, stretch, noise_scale=host.array([1.0]))
    with pytest.raises(ValueError, match=r"the generator to map \(N, \*latent"):
        pushforward(normal, lambda z: host.xp.concatenate([z, z]))
    positive = host.dist.Gamma(host.array([1.0]), 1.0).to_event(1)
    with pytest.raises(ValueError, match="a latent over all real numbers"):
        _ = pushforward(positive, stretch, noise_scale=NOISE_SCALE).noiseless


def test_importance_needs_no_latent_space(host):
    flat = host.dist.Uniform(-1.0, host.array([1.0, 1.0])).to_event(1)
    base = host.ebm.Pushforward(flat, lambda z: z, noise_scale=0.3)
    density = host.ebm.EnergyBased(lambda x: x[:, 0] ** 2, base)
    result = host.log_normalizer(density, method="importance")
    x = np.random.default_rng(0).uniform(-1, 1, 100_000)
    x += 0.3 * np.random.default_rng(1).normal(size=100_000)
    assert abs(float(result.estimate) - np.log(np.exp(-(x**2)).mean())) < 0.06


# --- with an energy ---


def test_log_prob_is_relative_to_the_base(host):
    base = host.ebm.Pushforward(host.normal((1,)), stretch)

    def log_prob(weight, x):
        def energy(x):
            return weight * (x**2).sum(-1)

        return host.ebm.EnergyBased(energy, base, inverse_temperature=3.0).log_prob(x)

    x = rng.normal(size=(4, 1))
    found = log_prob(host.array(0.5), host.array(x))
    np.testing.assert_allclose(found, -1.5 * x[:, 0] ** 2, rtol=1e-5)
    with host.untrained():
        by_weight, by_value = host.gradients(lambda *args: log_prob(*args).sum(), 0.5, x)
    assert by_weight == 0
    np.testing.assert_allclose(by_value, -3 * x, rtol=1e-5)


@pytest.mark.parametrize(("inverse_temperature", "step_size"), [(1.0, 0.5), (10.0, 0.06)])
def test_latent_sampling(host, inverse_temperature, step_size):
    prior = make_prior(host, inverse_temperature, step_size=step_size)
    expected = latent_variance(inverse_temperature)
    assert_variance(host.sample(prior.latent, (20_000,)), expected)
    assert_variance(host.sample(prior, (20_000,)), W**2 * expected)


def test_sampling_in_data_space(host):
    options = {"sampler": host.ebm.MALA(0.8), "num_sampler_steps": 60}
    direct = host.ebm.EnergyBased(square, host.normal((1,), 0.0, W), **options)
    assert_variance(host.sample(direct, (20_000,)), W**2 * latent_variance())


def test_noise_in_the_latent(host):
    prior = make_prior(host, noise_scale=NOISE_SCALE)
    assert prior.latent.event_shape == (2,)
    expected = NOISY_VARIANCE / (1 + A * NOISY_VARIANCE)
    assert_variance(host.sample(prior, (20_000,)), expected)
    found = host.log_normalizer(prior, method="grid").estimate.item()
    assert found == pytest.approx(-0.5 * math.log(1 + A * NOISY_VARIANCE), abs=1e-3)


def test_log_normalizer(host):
    prior = make_prior(host)
    grid = host.log_normalizer(prior, method="grid")
    assert grid.estimate.item() == pytest.approx(LOG_NORMALIZER, abs=1e-3)
    for method in ("annealed", "importance"):
        found = host.log_normalizer(prior, method=method)
        assert abs(found.estimate.item() - LOG_NORMALIZER) < 4 * found.standard_error.item()


@pytest.mark.parametrize(
    ("make", "bias"),
    [
        # Without a test of acceptance the variance is v / (1 - h / 2v) at a step size h.
        (lambda ebm: ebm.Langevin(0.1), 0.1 / (2 * latent_variance() - 0.1)),
        (lambda ebm: ebm.KineticLangevin(0.2), 0.0),
        (lambda ebm: ebm.MALA(0.3), 0.0),
        (lambda ebm: ebm.HMC(0.4, num_steps=3), 0.0),
    ],
)
def test_latent_chains(host, make, bias):
    settings = {"num_chains": 50, "num_samples": 50, "num_warmup": 50, "thinning": 2}
    chains = host.run_chains(make(host.ebm), make_prior(host).latent, **settings)
    data = chains.to_arviz()
    assert az.rhat(data)["x"].max() < 1.1
    assert az.ess(data)["x"].min() > 300
    variance = (1 + bias) * latent_variance()
    squares = data["posterior"]["x"] ** 2
    error = float(squares.std()) / math.sqrt(az.ess(squares.to_dataset(), method="mean")["x"].min())
    assert abs(float(squares.mean()) - variance) < 4 * error < 0.15


def test_nuts_on_the_latent(host):
    mcmc = host.nuts(make_prior(host).latent, num_samples=600, num_warmup=100)
    squares = to_arviz(mcmc)["posterior"]["z"] ** 2
    effective = float(az.ess(squares.to_dataset())["z"].min())
    error = float(squares.std()) / math.sqrt(effective)
    assert abs(float(squares.mean()) - latent_variance()) < 4 * error < latent_variance()


# --- refusals ---


def test_latent_site_without_a_density(host):
    model, x = (
        host.latent_model(square, lambda energy: make_prior(host)),
        host.array(np.zeros((3, 1))),
    )
    with pytest.raises(ValueError, match="Expected a base with a density at the latent site 'z'"):
        host.fit(model, host.mean_field_guide, host.ebm.EnergyELBO(host.ebm.ScoreMatching()), x)
    (issue,) = host.ebm.check_model(model)(x)
    assert (issue.site, issue.kind) == ("z", "implicit")
    with pytest.raises(NotImplementedError, match="use the latent space"):
        host.nuts_on_model(model, x)


@pytest.mark.parametrize(
    "use",
    [
        lambda host, prior, x: host.run_chains(host.ebm.MALA(0.1), prior),
        lambda host, prior, x: host.move_values(host.ebm.MALA(0.1), prior, x, 1).samples,
        lambda host, prior, x: host.loss(host.ebm.EnergyDiscrepancy(variance=0.1), prior, x),
        lambda host, prior, x: host.loss(host.ebm.ScoreMatching(), prior, x),
    ],
)
def test_uses_that_need_a_density(host, use):
    with pytest.raises((ValueError, NotImplementedError), match="latent"):
        use(host, make_prior(host), host.array(np.zeros((3, 1))))


def test_base_without_a_latent_space(host):
    with pytest.raises(ValueError, match="Expected a base with a latent space"):
        _ = host.ebm.EnergyBased(square, host.normal((1,))).latent


def test_batch_of_transforms(host):
    transform = host.AffineTransform(host.array(np.ones((3, 1))), 1.0)
    base = host.dist.TransformedDistribution(host.normal((1,)).expand((3,)), [transform])
    with pytest.raises(ValueError, match="Expected one transform for all batch elements"):
        _ = host.ebm.EnergyBased(square, base).latent


def check_flow(host, flow, prior, transform):
    """A flow as the base of ``prior``; ``transform`` is its way from the latent to values."""
    value = host.array(rng.normal(size=(5, 2)))
    expected = flow.log_prob(value) - square(value)
    np.testing.assert_allclose(
        host.to_numpy(prior.log_prob(value)), host.to_numpy(expected), rtol=1e-5, atol=1e-6
    )
    # The latent has the same normalizer, and draws that the flow takes to the same moments.
    draws = host.sample(flow, (20_000,))
    weights = np.exp(-square(draws))
    grid = host.log_normalizer(prior.latent, method="grid").estimate.item()
    assert grid == pytest.approx(math.log(weights.mean()), abs=0.04)
    moved = host.to_numpy(transform(host.array(host.sample(prior.latent, (4000,)))))
    expected = (weights / weights.sum()) @ draws**2
    np.testing.assert_allclose((moved**2).mean(0), expected, rtol=0.15)
    assert host.sample(prior, (3,)).shape == (3, 2)
