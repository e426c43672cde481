import math
import operator
from functools import partial

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from helpers import bound_cases as known
from helpers.hosts.pyro import normal
from torch import nn
from torch.distributions.transforms import AffineTransform

import pyro_ebm.pyro as ebm
from pyro_ebm.core.objectives.bidirectional_bounds import half_squared_norm
from pyro_ebm.pyro.objectives.generator import VariationalGenerator

pytestmark = pytest.mark.usefixtures("float64")

FEW_LATENT = "makes values on a surface"


def density(energy, event_shape):
    return ebm.EnergyBased(lambda x: energy(torch, x), event_shape=event_shape)


def pushforward(generator, latent_shape):
    return ebm.Pushforward(normal(latent_shape), lambda z: generator(torch, z))


def multiple(scale):
    generator = partial(operator.mul, torch.as_tensor(scale))
    return ebm.Pushforward(normal(torch.as_tensor(scale).shape), generator)


def game(case):
    return density(case.energy, case.event_shape), pushforward(case.generator, case.latent_shape)


def at_nodes(distribution, generator, num_nodes, entropy="exact"):
    """Log-ratios and half squared norms of their slopes at nodes, and the nodes' weights."""
    shape = generator.latent.event_shape
    nodes, weights = known.normal_nodes(num_nodes, *shape)
    generated = VariationalGenerator.of(distribution, generator, entropy=entropy)
    draws = generated.compare(distribution, torch.as_tensor(nodes))
    return draws.log_ratio, half_squared_norm(draws.slope), torch.as_tensor(weights)


def log_sum(log_ratio, weights):
    return torch.logsumexp(log_ratio + weights.log(), 0)


@pytest.mark.parametrize("name", known.CASES)
def test_bounds_by_quadrature(name):
    case = known.CASES[name]
    log_ratio, half_squared_norms, weights = at_nodes(*game(case), 200)
    assert weights @ log_ratio == pytest.approx(case.mean, abs=2e-5)
    assert weights @ half_squared_norms == pytest.approx(case.penalty, abs=2e-5)


def test_draws_bracket_the_truth():
    case, rho = known.SHIFTED, 0.36
    log_ratio, half_squared_norms, weights = at_nodes(*game(case), 200)
    result = ebm.generator_bounds(*game(case), num_samples=50_000, log_sobolev_constant=rho)

    def error(x):
        return math.sqrt(weights @ (x - weights @ x).square() / 50_000)

    assert abs(result.mean_log_ratio - case.mean) < 4 * error(log_ratio)
    assert abs(result.penalty - case.penalty) < 4 * error(half_squared_norms)
    both = log_ratio + half_squared_norms / rho
    assert abs(result.upper - 2 * error(both) - weights @ both) < 4 * error(both)
    assert result.lower < case.log_normalizer < result.upper
    assert abs(result.estimate - case.log_normalizer) < 4 * result.standard_error < 0.1
    assert 1000 < result.effective_sample_size < 50_000
    assert result.log_weights.shape == (50_000,)


@pytest.mark.parametrize("is_transform", [False, True])
def test_the_best_generator_closes_the_gap(is_transform):
    distribution, generator = game(known.CASES[f"scaled by {math.sqrt(0.5)}"])
    if is_transform:
        scale = AffineTransform(0.0, math.sqrt(0.5))
        generator = dist.TransformedDistribution(normal(()), [scale])
    result = ebm.generator_bounds(distribution, generator, num_samples=5, log_sobolev_constant=1.0)
    for bound in (result.mean_log_ratio, result.lower, result.upper, result.estimate):
        assert bound == pytest.approx(0.5 * math.log(math.pi), abs=1e-12)
    assert result.penalty == pytest.approx(0.0, abs=1e-12)
    assert result.effective_sample_size == pytest.approx(5.0)


def test_the_smallest_singular_value_prefers_another_generator():
    distribution = density(known.stretched, (2,))
    scales = {"conformal": [known.CONFORMAL, known.CONFORMAL], "best": [1.0, 0.1]}
    means = {
        (name, entropy): weights @ log_ratio
        for name, scale in scales.items()
        for entropy in ("exact", "smallest_singular_value")
        for log_ratio, _, weights in [at_nodes(distribution, multiple(scale), 10, entropy)]
    }
    truth = known.LOG_NORMALIZER_STRETCHED
    assert means["best", "exact"] == pytest.approx(truth, abs=1e-6)
    for entropy in ("exact", "smallest_singular_value"):
        gap = truth - means["conformal", entropy]
        assert gap == pytest.approx(known.CONFORMAL_GAP, abs=1e-4)
    short = means["best", "smallest_singular_value"]
    assert short == pytest.approx(truth + math.log(0.1), abs=1e-6)
    assert short < means["conformal", "smallest_singular_value"]


def test_fewer_latent_dimensions_warn():
    distribution, generator = density(known.narrow, (2,)), pushforward(known.line, ())
    with pytest.warns(UserWarning, match=FEW_LATENT):
        result = ebm.generator_bounds(distribution, generator, num_samples=5)
    assert result.lower == pytest.approx(known.ON_THE_LINE, abs=5e-4)
    assert result.lower > known.LOG_NORMALIZER_NARROW


def test_bounds_on_a_surface():
    distribution, generator = density(known.bumpy, (3,)), pushforward(known.surface, (2,))
    with pytest.warns(UserWarning, match=FEW_LATENT):
        results = {
            entropy: at_nodes(distribution, generator, 120, entropy) for entropy in known.SURFACE
        }
    for entropy, (log_ratio, _, weights) in results.items():
        assert weights @ log_ratio == pytest.approx(known.SURFACE[entropy], abs=5e-5)
    log_ratio, _, weights = results["exact"]
    assert log_sum(log_ratio, weights) == pytest.approx(known.LOG_INTEGRAL_OF_SURFACE, abs=1e-6)


def test_an_estimated_entropy_bounds_nothing():
    options = {"entropy": "smallest_singular_value", "num_iterations": 2, "num_samples": 20}
    result = ebm.generator_bounds(density(known.stretched, (2,)), multiple([0.1, 0.1]), **options)
    assert result.lower == -math.inf
    assert result.upper == math.inf
    assert math.isfinite(result.mean_log_ratio)


class Encoder(nn.Module):
    """The posterior of probabilistic PCA, its mean and covariance multiplied."""

    def __init__(self, of_mean, of_covariance):
        super().__init__()
        self.map = torch.as_tensor(of_mean * known.POSTERIOR_MAP)
        self.factor = torch.as_tensor(math.sqrt(of_covariance) * known.POSTERIOR_FACTOR)

    def forward(self, x):
        return dist.MultivariateNormal(x @ self.map.T, scale_tril=self.factor)


def probabilistic_pca():
    """Its own marginal density as a distribution, and itself as a generator with noise."""
    factor = torch.as_tensor(known.MARGINAL_FACTOR)
    marginal = dist.MultivariateNormal(torch.zeros(5), scale_tril=factor)
    loadings = torch.as_tensor(known.LOADINGS)
    generator = ebm.Pushforward(
        normal((2,)), lambda z: z @ loadings.T, noise_scale=known.NOISE_SCALE
    )
    return ebm.EnergyBased(lambda x: 0 * x.sum(-1), marginal), generator


def test_the_posterior_as_encoder_attains_the_entropy():
    distribution, generator = probabilistic_pca()

    def report(*multiples):
        options = {"entropy": "noise", "num_samples": 50_000, "log_sobolev_constant": 1.0}
        return ebm.generator_bounds(distribution, generator, encoder=Encoder(*multiples), **options)

    # Of each draw, the density by the encoder is then the exact one, whose entropy is known.
    best = report(1.0, 1.0)
    assert abs(best.log_weights).max() < 1e-9
    assert distribution.base.entropy() == pytest.approx(known.ENTROPY, abs=1e-6)
    for bound in (best.lower, best.upper, best.estimate, best.penalty):
        assert bound == pytest.approx(0.0, abs=1e-9)
    worse = report(0.8, 2.0)
    error = (worse.mean_log_ratio - worse.lower) / 2
    missing = known.LESS_INFORMATION - known.INFORMATION
    assert abs(worse.mean_log_ratio - missing) < 4 * error < 0.03
    good = report(0.95, 1.2)
    assert good.lower < -0.01
    assert abs(good.estimate) < 4 * good.standard_error < 0.01


def test_no_gradient_is_left():
    scale = torch.tensor(0.7, requires_grad=True)
    generator = ebm.Pushforward(normal(()), lambda z: scale * z)
    result = ebm.generator_bounds(density(known.quartic, ()), generator, num_samples=10)
    assert not any(part.requires_grad for part in vars(result).values())


def test_errors():
    distribution, generator = game(known.SHIFTED)
    with pytest.raises(ValueError, match="an encoder"):
        ebm.generator_bounds(distribution, generator, entropy="noise")
    batch = ebm.EnergyBased(lambda x: x, dist.Normal(torch.zeros(3), 1.0))
    with pytest.raises(ValueError, match="one base for all batch elements"):
        ebm.generator_bounds(batch, generator)
    broken = ebm.EnergyBased(lambda x: x * np.nan, event_shape=())
    with pytest.raises(ValueError, match=r"NaN .*on 1000 of 1000"):
        ebm.generator_bounds(broken, generator)
