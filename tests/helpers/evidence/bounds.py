import math
import operator

import numpy as np
import pytest

from helpers import bound_cases as known

pytestmark = pytest.mark.usefixtures("float64")

FEW_LATENT = "makes values on a surface"


def density(host, energy, event_shape):
    return host.ebm.EnergyBased(lambda x: energy(host.xp, x), event_shape=event_shape)


def pushforward(host, generator, latent_shape):
    return host.ebm.Pushforward(host.normal(latent_shape), lambda z: generator(host.xp, z))


def multiple(host, scale):
    generator = host.bind(operator.mul, host.array(scale))
    return host.ebm.Pushforward(host.normal(np.shape(scale)), generator)


def game(host, case):
    generator = pushforward(host, case.generator, case.latent_shape)
    return density(host, case.energy, case.event_shape), generator


def at_nodes(host, distribution, generator, num_nodes, entropy="exact"):
    """Log-ratios and half squared norms of their slopes at nodes, and the nodes' weights."""
    nodes, weights = known.normal_nodes(num_nodes, *generator.latent.event_shape)
    return *host.compared(distribution, generator, nodes, entropy), weights


@pytest.mark.parametrize("name", known.CASES)
def test_bounds_by_quadrature(host, name):
    case = known.CASES[name]
    log_ratio, half_squared_norms, weights = at_nodes(host, *game(host, case), 200)
    assert weights @ log_ratio == pytest.approx(case.mean, abs=2e-5)
    assert weights @ half_squared_norms == pytest.approx(case.penalty, abs=2e-5)


def test_draws_bracket_the_truth(host):
    case, rho, num_samples = known.SHIFTED, 0.36, 50_000
    distribution, generator = game(host, case)
    log_ratio, half_squared_norms, weights = at_nodes(host, distribution, generator, 200)
    options = {"num_samples": num_samples, "log_sobolev_constant": rho}
    result = host.generator_bounds(distribution, generator, **options)

    def error(x):
        return math.sqrt(weights @ (x - weights @ x) ** 2 / num_samples)

    assert abs(result.mean_log_ratio - case.mean) < 4 * error(log_ratio)
    assert abs(result.penalty - case.penalty) < 4 * error(half_squared_norms)
    both = log_ratio + half_squared_norms / rho
    assert abs(result.upper - 2 * error(both) - weights @ both) < 4 * error(both)
    assert result.lower < case.log_normalizer < result.upper
    assert abs(result.estimate - case.log_normalizer) < 4 * result.standard_error < 0.1
    assert 1000 < result.effective_sample_size < num_samples
    assert result.log_weights.shape == (num_samples,)


@pytest.mark.parametrize("is_transform", [False, True])
def test_the_best_generator_closes_the_gap(host, is_transform):
    distribution, generator = game(host, known.CASES[f"scaled by {math.sqrt(0.5)}"])
    if is_transform:
        scale = host.dist.transforms.AffineTransform(0.0, math.sqrt(0.5))
        generator = host.dist.TransformedDistribution(host.normal(()), [scale])
    options = {"num_samples": 5, "log_sobolev_constant": 1.0}
    result = host.generator_bounds(distribution, generator, **options)
    for bound in (result.mean_log_ratio, result.lower, result.upper, result.estimate):
        assert float(bound) == pytest.approx(0.5 * math.log(math.pi), abs=1e-12)
    assert float(result.penalty) == pytest.approx(0.0, abs=1e-12)
    assert float(result.effective_sample_size) == pytest.approx(5.0)


def test_the_smallest_singular_value_prefers_another_generator(host):
    distribution = density(host, known.stretched, (2,))
    scales = {"conformal": [known.CONFORMAL, known.CONFORMAL], "best": [1.0, 0.1]}
    means = {
        (name, entropy): weights @ log_ratio
        for name, scale in scales.items()
        for entropy in ("exact", "smallest_singular_value")
        for log_ratio, _, weights in [
            at_nodes(host, distribution, multiple(host, scale), 10, entropy)
        ]
    }
    truth = known.LOG_NORMALIZER_STRETCHED
    assert means["best", "exact"] == pytest.approx(truth, abs=1e-6)
    for entropy in ("exact", "smallest_singular_value"):
        gap = truth - means["conformal", entropy]
        assert gap == pytest.approx(known.CONFORMAL_GAP, abs=1e-4)
    short = means["best", "smallest_singular_value"]
    assert short == pytest.approx(truth + math.log(0.1), abs=1e-6)
    assert short < means["conformal", "smallest_singular_value"]


def test_fewer_latent_dimensions_warn(host):
    distribution, generator = density(host, known.narrow, (2,)), pushforward(host, known.line, ())
    with pytest.warns(UserWarning, match=FEW_LATENT):
        result = host.generator_bounds(distribution, generator, num_samples=5)
    # A bound of another integral.
    assert float(result.lower) == pytest.approx(known.ON_THE_LINE, abs=5e-4)
    assert result.lower > known.LOG_NORMALIZER_NARROW


def test_bounds_on_a_surface(host):
    distribution = density(host, known.bumpy, (3,))
    generator = pushforward(host, known.surface, (2,))
    with pytest.warns(UserWarning, match=FEW_LATENT):
        results = {
            entropy: at_nodes(host, distribution, generator, 120, entropy)
            for entropy in known.SURFACE
        }
    for entropy, (log_ratio, _, weights) in results.items():
        assert weights @ log_ratio == pytest.approx(known.SURFACE[entropy], abs=5e-5)
    log_ratio, _, weights = results["exact"]
    integral = np.log(weights @ np.exp(log_ratio))
    assert integral == pytest.approx(known.LOG_INTEGRAL_OF_SURFACE, abs=1e-6)


def test_an_estimated_entropy_bounds_nothing(host):
    options = {"entropy": "smallest_singular_value", "num_iterations": 2, "num_samples": 20}
    distribution = density(host, known.stretched, (2,))
    result = host.generator_bounds(distribution, multiple(host, [0.1, 0.1]), **options)
    assert result.lower == -math.inf
    assert result.upper == math.inf
    assert math.isfinite(result.mean_log_ratio)


def report_of_encoders(host):
    """Bounds of probabilistic PCA by multiples of the mean and covariance of its posterior."""
    marginal = host.dist.MultivariateNormal(
        host.array(np.zeros(5)), scale_tril=host.array(known.MARGINAL_FACTOR)
    )
    loadings = host.array(known.LOADINGS)
    generator = host.ebm.Pushforward(
        host.normal((2,)), lambda z: z @ loadings.T, noise_scale=known.NOISE_SCALE
    )
    # The marginal density as a distribution, and the model as a generator with noise.
    distribution = host.ebm.EnergyBased(lambda x: 0 * x.sum(-1), marginal)
    options = {"entropy": "noise", "num_samples": 50_000, "log_sobolev_constant": 1.0}

    def posterior(loc_map, factor, x):
        return host.dist.MultivariateNormal(x @ loc_map.T, scale_tril=factor)

    def report(of_mean, of_covariance):
        factor = math.sqrt(of_covariance) * known.POSTERIOR_FACTOR
        arrays = host.array(of_mean * known.POSTERIOR_MAP), host.array(factor)
        encoder = host.bind(posterior, *arrays)
        return host.generator_bounds(distribution, generator, encoder=encoder, **options)

    return report


def test_the_posterior_as_encoder_attains_the_entropy(host):
    report = report_of_encoders(host)
    # Of each draw, the density by the encoder is then the exact one.
    best = report(1.0, 1.0)
    assert abs(best.log_weights).max() < 1e-9
    for bound in (best.lower, best.upper, best.estimate, best.penalty):
        assert float(bound) == pytest.approx(0.0, abs=1e-9)
    worse = report(0.8, 2.0)
    error = (worse.mean_log_ratio - worse.lower) / 2
    missing = known.LESS_INFORMATION - known.INFORMATION
    assert abs(worse.mean_log_ratio - missing) < 4 * error < 0.03
    good = report(0.95, 1.2)
    assert good.lower < -0.01
    assert abs(good.estimate) < 4 * good.standard_error < 0.01


def test_errors(host):
    distribution, generator = game(host, known.SHIFTED)
    with pytest.raises(ValueError, match="an encoder"):
        host.generator_bounds(distribution, generator, entropy="noise")
    batch = host.ebm.EnergyBased(lambda x: x, host.dist.Normal(host.array(np.zeros(3)), 1.0))
    with pytest.raises(ValueError, match="one distribution for all batch elements"):
        host.generator_bounds(batch, generator)
    broken = host.ebm.EnergyBased(lambda x: x * math.nan, event_shape=())
    with pytest.raises(ValueError, match=r"NaN .*on 1000 of 1000"):
        host.generator_bounds(broken, generator)
