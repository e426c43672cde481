import math

import numpy as np
import pytest
from scipy import stats

from helpers import linear_gaussian as truth

KNOWN = {"log_normalizers": {"z": 0.5 * math.log(1 / 16 / truth.PRECISION)}}
SETTINGS = {
    "importance": {"num_samples": 500},
    "annealed": {
        "method": "annealed",
        "num_samples": 100,
        "num_temperatures": 20,
        "batch_size": 50,
    },
}


def untuned(host):
    """Settings that compile faster, without a pilot run."""
    return {**SETTINGS["annealed"], "sampler": host.ebm.MALA(0.5, target_accept_prob=None)}


def exact_log_marginal(x):
    variance = 1 / truth.PRECISION + 1
    return -0.5 * np.asarray(x) ** 2 / variance - 0.5 * math.log(2 * math.pi * variance)


def check(result, exact):
    """Errors are as large as stated, over many data points."""
    assert result.estimate.shape == result.standard_error.shape == exact.shape
    errors = (np.asarray(result.estimate) - np.asarray(exact)) / np.asarray(result.standard_error)
    assert errors.mean() == pytest.approx(0.0, abs=4 / math.sqrt(len(errors)))
    assert (errors**2).mean() == pytest.approx(1.0, abs=4 * math.sqrt(2 / len(errors)))


# --- exact marginal likelihoods ---


@pytest.mark.parametrize("method", SETTINGS)
def test_each_data_point_is_right_within_its_error(host, method):
    # The toy at its best prior, and a guide that is not quite the posterior.
    toy = truth.Toy(host, precision=truth.PRECISION, slope=0.7, scale=1.1)
    result = host.log_marginal(*host.fitted(toy), **KNOWN, **SETTINGS[method])()
    check(result, exact_log_marginal(toy.x))
    assert result.standard_error.mean() < 0.1
    assert (result.log_normalizer_error == 0).all()


# --- one number for all data ---


def grouped_model(host):
    def model(x):
        loc = host.ppl.sample("loc", host.dist.Normal(0.0, 1.0))
        with host.ppl.plate("data", len(x)):
            z = host.ppl.sample("z", host.dist.Normal(loc, 1.0))
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x)

    return model


def test_a_latent_outside_of_the_plate(host):
    x, covariance = host.random_normal(3), host.array(np.ones((3, 3)) + 2 * np.eye(3))
    exact = host.dist.MultivariateNormal(host.array(np.zeros(3)), covariance).log_prob(x)
    result = host.log_marginal(grouped_model(host), **untuned(host))(x)
    assert result.estimate.shape == ()
    assert abs(result.estimate - exact) < 4 * result.standard_error < 1.0


def normal_model(host):
    def model(x):
        with host.ppl.plate("data", len(x)):
            z = host.ppl.sample("z", host.dist.Normal(0.0, 1.0))
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x)

    return model


def test_a_guide_that_ties_data_points(host):
    x, model = host.random_normal(3), normal_model(host)
    guide = host.tied_guide(model, x)
    exact = host.dist.Normal(0.0, math.sqrt(2.0)).log_prob(x).sum()
    result = host.log_marginal(model, guide, num_samples=4000)(x)
    assert result.estimate.shape == ()
    assert abs(result.estimate - exact) < 4 * result.standard_error < 1.0


@pytest.mark.once
@pytest.mark.parametrize("kind", ["normal", "energy", "truncated"])
def test_scaled_priors_start_at_draws_without_scale(host, kind):
    """A scale of 2: the integral of the squared prior and likelihood, by quadrature."""

    def prior():
        if kind == "normal":
            return host.normal(())
        support = host.dist.constraints.positive if kind == "truncated" else None
        return host.ebm.EnergyBased(lambda z: 0.3 * z**2, host.normal(()), support=support)

    def model(x):
        with host.ppl.plate("data", 3), host.scale(scale=2.0):
            z = host.ppl.sample("z", prior())
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x)

    x = np.array([0.2, 1.7, 2.5])
    result = host.log_marginal(model, num_samples=2000, num_temperatures=50, method="annealed")(
        host.array(x)
    )
    z = np.linspace(0.0 if kind == "truncated" else -10.0, 10.0, 20_001)
    density = np.exp(-(0.5 if kind == "normal" else 0.8) * z**2)
    density /= np.trapezoid(density, z)
    likelihood = np.exp(-((x[:, None] - z) ** 2) / 2) / np.sqrt(2 * np.pi)
    exact = np.log(np.trapezoid((density * likelihood) ** 2, z))
    error = np.asarray(result.standard_error)
    assert (np.abs(np.asarray(result.estimate) - exact) < 4 * error).all()
    assert (error < 0.1).all()


# --- log-normalizers ---


def steep(z):
    return 1.5 * z**2


def features_model(host):
    """A datum has three latents of one energy-based prior; the first two of them count.

    Another latent, of no consequence, makes them one datum.
    """
    features = np.array([True, True, False])

    def model(x, log_normalizer=None):
        base = host.dist.Normal(0.0, 1.0)
        prior = host.ebm.EnergyBased(steep, base, log_normalizer=log_normalizer)
        with host.ppl.plate("data", len(x), dim=-2):
            host.ppl.sample("idle", host.dist.Normal(0.0, 1.0))
            with host.ppl.plate("features", 3, dim=-1), host.mask(mask=host.xp.asarray(features)):
                z = host.ppl.sample("z", prior)
                host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x)

    return model


@pytest.mark.once
def test_errors_of_log_normalizers_add_up(host):
    x, model = host.random_normal(5, 3), features_model(host)
    prior = host.ebm.EnergyBased(steep, host.dist.Normal(0.0, 1.0))
    rough = host.log_normalizer(prior, method="importance", num_samples=50)
    results = []
    for known in ({"z": -math.log(2)}, {"z": rough}, None):
        host.seed(1)
        results.append(host.log_marginal(model, log_normalizers=known, **untuned(host))(x))
    exact, with_error, estimated = results
    host.seed(1)
    known = host.log_marginal(model, **untuned(host))(x, log_normalizer=lambda: -math.log(2))
    log_marginal = host.dist.Normal(0.0, math.sqrt(1.25)).log_prob(x)[:, :2].sum(-1)
    for result in (exact, estimated, known):
        assert (abs(result.estimate - log_marginal) < 4 * result.standard_error).all()
    assert (estimated.log_normalizer_error > 0).all()
    assert (known.log_normalizer_error == 0).all()
    shift = 2 * (rough.estimate + math.log(2))
    np.testing.assert_allclose(with_error.estimate, exact.estimate - shift, rtol=1e-5)
    common = np.full(5, 2 * rough.standard_error)
    np.testing.assert_allclose(with_error.log_normalizer_error, common, rtol=1e-5)
    expected = np.hypot(np.asarray(exact.standard_error), common)
    np.testing.assert_allclose(with_error.standard_error, expected, rtol=1e-5)


def joint_energy(host):
    """x | z ~ N(z, 1): log Z is -1.5 for every z."""
    base = host.ebm.Joint(z=host.dist.Normal(0.0, 1.0), x=host.dist.Normal(0.0, 2.0))
    energy = lambda z, x: (x - z) ** 2 / 2 - x**2 / 8 - math.log(2) + 1.5  # noqa: E731
    return host.ebm.EnergyBased(energy, base)


def conditional_model(host, log_normalizer=None):
    joint = joint_energy(host)
    joint = joint if log_normalizer is None else joint.normalized(log_normalizer)

    def model(x):
        with host.ppl.plate("data", len(x)):
            z = host.ppl.sample("z", host.dist.Normal(0.0, 1.0))
            host.ppl.sample("x", joint.conditional(z=z), obs=x)

    def guide(x):
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("z", host.dist.Normal(x / 2, 0.5**0.5))

    return model, guide


def test_conditionals_need_the_log_normalizer_of_the_joint(host):
    x = host.random_normal(5)
    with pytest.raises(ValueError, match=r"for conditional 'x', got none: observe `joint.normal"):
        host.log_marginal(*conditional_model(host), num_samples=10)(x)
    exact = host.dist.Normal(0.0, math.sqrt(2)).log_prob(x)
    given = {"log_normalizers": {"x": -1.5}}
    for model, options in ((conditional_model(host, -1.5), {}), (conditional_model(host), given)):
        result = host.log_marginal(*model, num_samples=50, **options)(x)
        np.testing.assert_allclose(result.estimate, exact, rtol=1e-4)


def test_normalized_conditionals_keep_the_error(host):
    """The same numbers as of a log-normalizer that is given."""
    rough = host.log_normalizer(joint_energy(host), method="importance", num_samples=50)
    x, results = host.random_normal(5), []
    for kept, given in ((rough, None), (None, {"x": rough}), (rough.estimate, None)):
        host.seed(0)
        estimate = host.log_marginal(
            *conditional_model(host, kept), num_samples=50, log_normalizers=given
        )
        results.append(estimate(x))
    for name in ("estimate", "standard_error", "log_normalizer_error"):
        known, expected, exact = (getattr(result, name) for result in results)
        np.testing.assert_allclose(known, expected, rtol=1e-4, atol=1e-6)
    assert (exact == 0).all() and (known > 0).all()  # noqa: PT018


def energy_of(latent):
    return lambda x: (x - latent) ** 2 * abs(latent)


UNKNOWN = {
    "mixture of energies": (
        lambda host, z: host.same_family(host.ebm.EnergyBased(energy_of(1.0), host.normal(()))),
        "Expected normalized components of MixtureSameFamily at site 'x', got EnergyBased",
    ),
    "mixture with a conditional": (
        lambda host, z: host.same_family(_joint(host).conditional(z=host.array(1.0))),
        "Expected a log-normalizer for conditional 'x', got none",
    ),
    "energy of a latent": (
        lambda host, z: host.ebm.EnergyBased(energy_of(z), host.normal(())),
        "got a dependence on the latent variable 'z'",
    ),
    "base of a latent": (
        lambda host, z: host.ebm.EnergyBased(energy_of(1.0), host.dist.Normal(z, 1.0)),
        "got a dependence on the latent variable 'z'",
    ),
}


def _joint(host):
    base = host.ebm.Joint(z=host.dist.Normal(0.0, 1.0), x=host.dist.Normal(0.0, 2.0))
    return host.ebm.EnergyBased(lambda z, x: (x - z) ** 2, base)


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_log_normalizers_of_observations(host, name):
    likelihood, message = UNKNOWN[name]

    def model():
        z = host.ppl.sample("z", host.dist.Normal(0.0, 1.0))
        host.ppl.sample("x", likelihood(host, z), obs=host.array(0.5))

    def guide():
        host.ppl.sample("z", host.dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=message):
        host.log_marginal(model, guide, num_samples=10)()


@pytest.mark.parametrize("method", SETTINGS)
def test_observations_without_a_plate_are_one_number(host, method):
    y = np.random.default_rng(0).normal(1.0, 1.0, 20)

    def model(y):
        b = host.ppl.sample("b", host.dist.Normal(0.0, 1.0))
        host.ppl.sample("y", host.dist.Normal(b, 1.0), obs=y)

    def guide(y):
        host.ppl.sample("b", host.dist.Normal(y.sum() / 21, 21**-0.5))

    settings = {**SETTINGS[method], "num_samples": 500}
    result = host.log_marginal(model, guide, **settings)(host.array(y))
    exact = stats.multivariate_normal(cov=np.eye(20) + 1).logpdf(y)
    assert np.shape(result.estimate) == ()
    assert abs(result.estimate - exact) < 1e-3 + 4 * result.standard_error < 0.5


# --- options, warnings and errors ---


def test_options_of_the_model_are_its_own(host):
    def model(x, method):
        z = host.ppl.sample("z", host.dist.Normal(0.0, 1.0))
        host.ppl.sample("x", host.dist.Normal(z, method), obs=x)

    x = host.array(0.5)
    result = host.log_marginal(model, **untuned(host))(x, method=1.0)
    exact = host.dist.Normal(0.0, math.sqrt(2)).log_prob(x)
    assert abs(result.estimate - exact) < 4 * result.standard_error < 1.0


def test_few_effective_samples_trigger_a_warning(host):
    toy = truth.Toy(host, precision=truth.PRECISION, slope=0.7, scale=0.02)
    with pytest.warns(UserWarning, match="is below 10 at .* of 512 data points"):
        host.log_marginal(*host.fitted(toy), **KNOWN, num_samples=50)()


def constrained_model(host):
    def model(x):
        scale = host.ppl.sample("scale", host.dist.LogNormal(0.0, 0.5))
        with host.ppl.plate("data", len(x)):
            z = host.ppl.sample("z", host.dist.Normal(0.0, scale))
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x)

    return model


def test_point_masses_of_a_guide(host):
    """One that is the same in every draw is refused; autoguides move draws by others."""
    x, model = host.random_normal(3), constrained_model(host)

    def guide(x):
        host.ppl.sample("scale", host.dist.Delta(host.array(0.4)))
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("z", host.dist.Normal(x / 2, 0.5**0.5))

    for number in (100, 1):
        with pytest.raises(ValueError, match="got the same value at site 'scale' in every draw"):
            host.log_marginal(model, guide, num_samples=number)(x)

    def flat(x):
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("z", host.dist.Delta(host.array(0.0)))

    with pytest.raises(ValueError, match="got one with nothing but Delta"):
        host.log_marginal(normal_model(host), flat)(x)
    for name in ("AutoNormal", "AutoMultivariateNormal"):
        guide = host.autoguide(name, model, x, {"scale": host.array(1.0), "z": x / 2})
        result = host.log_marginal(model, guide, num_samples=500)(x)
        scales = np.exp(np.linspace(-2.5, 2.5, 2001))
        prior = stats.lognorm(0.5).pdf(scales)
        likelihood = stats.norm(0, (1 + scales**2) ** 0.5).pdf(np.asarray(x)[:, None]).prod(0)
        exact = np.log(np.trapezoid(prior * likelihood, scales))
        assert abs(float(result.estimate) - exact) < 4 * float(result.standard_error) + 0.02


@pytest.mark.parametrize("method", SETTINGS)
def test_a_guide_wider_than_a_support(host, method):
    """An exponential prior, as it is and shifted, has a formula below its bound too."""
    unchecked = {"validate_args": False}  # NumPyro's own checks give minus infinity there.
    plain, shift = host.dist.Exponential(1.0, **unchecked), host.dist.transforms.AffineTransform
    shifted = host.dist.TransformedDistribution(plain, [shift(1.0, 2.0)], **unchecked)
    z = np.linspace(0, 20, 100_001)
    for prior, low, scale in ((plain, 0, 1), (shifted, 1, 2)):

        def model(prior=prior):
            z = host.ppl.sample("z", prior)
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=host.array(0.5))

        def guide():
            host.ppl.sample("z", host.dist.Normal(0.8, 1.0))

        exact = np.trapezoid(np.exp(-z) * stats.norm.pdf(0.5, low + scale * z, 1), z)
        found = host.log_marginal(model, guide, **SETTINGS[method])()
        error = 4 * float(found.standard_error) + 0.02
        assert abs(float(found.estimate) - math.log(exact)) < error < 0.6


def test_a_guide_wider_than_its_model(host):
    """Each value would have a log-normalizer."""

    def model(x):
        z = host.ppl.sample("z", host.dist.Normal(0.0, 1.0))
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("x", host.dist.Normal(z, 1.0), obs=x)

    def wide(x):
        with host.ppl.plate("data", len(x)):
            host.ppl.sample("z", host.dist.Normal(x / 2, 0.5**0.5))

    with pytest.raises(ValueError, match=r"shape \(\) at site 'z' of the guide.*got \(3,\)"):
        host.log_marginal(model, wide)(host.random_normal(3))


def test_errors(host):
    x, model = host.random_normal(3), grouped_model(host)
    with pytest.raises(ValueError, match="a guide for method='importance', got None"):
        host.log_marginal(model)(x)
    with pytest.raises(ValueError, match="a guide with a density, got one with nothing but Delta"):
        host.log_marginal(model, host.ebm.LangevinGuide(model))(x)
    with pytest.raises(ValueError, match=r"energy-based sites of the model \(\[\]\), got 'z'"):
        host.log_marginal(model, method="annealed", log_normalizers={"z": 0.0})(x)
    sampler = host.ebm.KineticLangevin(0.1)
    with pytest.raises(ValueError, match=r"accepts or rejects its moves.*, got KineticLangevin"):
        host.log_marginal(model, method="annealed", sampler=sampler)(x)
