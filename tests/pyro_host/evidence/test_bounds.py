import math
import operator
from functools import partial

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from helpers import bound_cases as known
from torch import nn
from torch.distributions.transforms import AffineTransform

import pyro_ebm.pyro as ebm
from pyro_ebm.core.objectives.bidirectional_bounds import half_square
from pyro_ebm.pyro.evidence.bounds import _values_and_scores
from pyro_ebm.pyro.objectives.generator import Partner

pytestmark = pytest.mark.usefixtures("float64")

FEW_LATENT = "makes values on a surface"


def latent_of(shape):
    return dist.Normal(torch.zeros(shape), 1.0).to_event(len(shape))


def tilted(energy, event_shape):
    return ebm.EnergyBased(lambda x: energy(torch, x), event_shape=event_shape)


def pushforward(generator, latent_shape):
    return ebm.Pushforward(latent_of(latent_shape), lambda z: generator(torch, z))


def multiple(scale):
    generator = partial(operator.mul, torch.as_tensor(scale))
    return ebm.Pushforward(latent_of(torch.as_tensor(scale).shape), generator)


def game(case):
    return tilted(case.energy, case.event_shape), pushforward(case.generator, case.latent_shape)


def at_nodes(distribution, generator, num_nodes, entropy="exact"):
    """Log-ratios and half squares of their slopes at nodes, and the nodes' weights."""
    shape = generator.latent.event_shape
    nodes, weights = known.normal_nodes(num_nodes, *shape)
    partner = Partner.of(distribution, generator, entropy=entropy)
    compared = partner.compare(distribution, torch.as_tensor(nodes))
    return compared.log_ratio, half_square(compared.slope), torch.as_tensor(weights)


def log_sum(log_ratio, weights):
    return torch.logsumexp(log_ratio + weights.log(), 0)


@pytest.mark.parametrize("name", known.CASES)
def test_bounds_by_quadrature(name):
    case = known.CASES[name]
    log_ratio, half_squares, weights = at_nodes(*game(case), 200)
    assert weights @ log_ratio == pytest.approx(case.mean, abs=2e-5)
    assert weights @ half_squares == pytest.approx(case.penalty, abs=2e-5)


def test_a_log_sobolev_constant_makes_a_penalty_a_bound_and_its_absence_does_not():
    # Concave up to 0.36, and two modes that are not concave at all.
    shifted, missed = known.SHIFTED, known.MISSED[1.0]
    assert shifted.penalty / 0.36 == pytest.approx(0.33660, abs=1e-4)
    assert shifted.log_normalizer - shifted.mean < shifted.penalty
    assert missed.log_normalizer - missed.mean > missed.penalty
    for a, bound in {0.5: 0.25, 1.0: 0.25, 1.5: 1.36111}.items():
        case = known.CASES[f"scaled by {a}"]
        assert case.penalty / (2 * a**2) == pytest.approx(bound, abs=1e-5)
        assert case.mean < case.log_normalizer < case.mean + bound


def test_draws_bracket_the_truth():
    case, rho = known.SHIFTED, 0.36
    log_ratio, half_squares, weights = at_nodes(*game(case), 200)
    result = ebm.bounds(*game(case), num_samples=50_000, log_sobolev_constant=rho)

    def error(x):
        return math.sqrt(weights @ (x - weights @ x).square() / 50_000)

    assert abs(result.mean_log_ratio - case.mean) < 4 * error(log_ratio)
    assert abs(result.penalty - case.penalty) < 4 * error(half_squares)
    both = log_ratio + half_squares / rho
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
        generator = dist.TransformedDistribution(latent_of(()), [scale])
    result = ebm.bounds(distribution, generator, num_samples=5, log_sobolev_constant=1.0)
    for bound in (result.mean_log_ratio, result.lower, result.upper, result.estimate):
        assert bound == pytest.approx(0.5 * math.log(math.pi), abs=1e-12)
    assert result.penalty == pytest.approx(0.0, abs=1e-12)
    assert result.effective_sample_size == pytest.approx(5.0)


def test_the_smallest_singular_value_prefers_a_generator_that_is_off():
    distribution = tilted(known.stretched, (2,))
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


def test_fewer_latent_dimensions_bound_another_integral_and_warn():
    distribution, generator = tilted(known.narrow, (2,)), pushforward(known.line, ())
    with pytest.warns(UserWarning, match=FEW_LATENT):
        result = ebm.bounds(distribution, generator, num_samples=5)
    assert result.lower == pytest.approx(known.ON_THE_LINE, abs=5e-4)
    assert result.lower > known.LOG_NORMALIZER_NARROW


def test_bounds_on_a_surface():
    distribution, generator = tilted(known.bumpy, (3,)), pushforward(known.surface, (2,))
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
    result = ebm.bounds(tilted(known.stretched, (2,)), multiple([0.1, 0.1]), **options)
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
        latent_of((2,)), lambda z: z @ loadings.T, noise_scale=known.NOISE_SCALE
    )
    return ebm.EnergyBased(lambda x: 0 * x.sum(-1), marginal), generator


def test_an_encoder_attains_the_entropy_if_it_is_the_posterior():
    distribution, generator = probabilistic_pca()

    def report(*multiples):
        options = {"entropy": "noise", "num_samples": 50_000, "log_sobolev_constant": 1.0}
        return ebm.bounds(distribution, generator, encoder=Encoder(*multiples), **options)

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


def plane():
    scales = torch.tensor([5.0, 2.0])
    return dist.Normal(torch.zeros(2), scales).to_event(1)


def seen_modes(c, x):
    """On a base that reaches both."""
    return known.two_modes_in_plane(torch, x, c) + plane().log_prob(x)


def one_mode(shift, matrix, z):
    return z @ matrix.T - shift


def test_scores_of_a_generator_are_those_of_its_density():
    matrix, zeros = torch.as_tensor(known.SHEAR), torch.zeros(2)
    generator = ebm.Pushforward(latent_of((2,)), partial(one_mode, zeros, matrix))
    distribution = tilted(known.bumpy, (2,))
    compared = Partner.of(distribution, generator).compare(distribution, torch.ones((3, 2)))
    value, score = _values_and_scores(compared)
    precision = np.linalg.inv(known.SHEAR @ known.SHEAR.T)
    np.testing.assert_allclose(score, -value.numpy() @ precision, rtol=1e-10)


@pytest.mark.parametrize("name", known.FLOWS)
def test_the_heat_flow_sees_missing_modes(name):
    c, matrix, divergence = known.FLOWS[name]
    shift = torch.as_tensor([c, 0.0])
    distribution = ebm.EnergyBased(partial(seen_modes, shift[0]), plane())
    mode = partial(one_mode, shift, torch.as_tensor(matrix))
    generator = ebm.Pushforward(latent_of((2,)), mode)
    result = ebm.bounds(distribution, generator, num_samples=500, diffusion=True)
    summed = result.mean_log_ratio + result.divergence
    error = (result.upper - summed) / 2
    # The truth is no further than errors tell, where weights and penalty see next to nothing.
    assert abs(summed - known.LOG_NORMALIZER_PLANE) < 4 * error < 0.5
    own_error = (result.mean_log_ratio - result.lower) / 2
    assert abs(result.divergence - divergence) < 4 * (error + own_error)
    assert result.divergence_sample_size > 20
    if name == "far apart":
        assert result.penalty < 0.05
        assert result.effective_sample_size > 490
        assert result.estimate < known.LOG_NORMALIZER_PLANE - 0.5


def test_no_gradient_is_left():
    scale = torch.tensor(0.7, requires_grad=True)
    generator = ebm.Pushforward(latent_of(()), lambda z: scale * z)
    result = ebm.bounds(tilted(known.quartic, ()), generator, num_samples=10)
    assert not any(part.requires_grad for part in result if part is not None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entropy": "guess"}, "Expected `entropy` to be one of"),
        ({"num_samples": 1}, "Expected `num_samples` to be an integer of at least 2"),
        ({"num_samples": 99, "diffusion": True}, "an integer of at least 100"),
        ({"log_sobolev_constant": 0.0}, "Expected `log_sobolev_constant` to be a positive"),
        (
            {"log_sobolev_constant": 1.0, "entropy": "smallest_singular_value"},
            "Expected entropy='exact' or 'noise' with a `log_sobolev_constant`",
        ),
        ({"diffusion": True, "entropy": "noise"}, "Expected entropy='exact' with diffusion"),
        ({"diffusion": True}, "Expected a base with a density"),
        ({"entropy": "noise"}, "an encoder"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ebm.bounds(*game(known.SHIFTED), **options)


def test_errors_of_what_has_no_heat_flow():
    with (
        pytest.warns(UserWarning, match=FEW_LATENT),
        pytest.raises(ValueError, match="as many latent as data dimensions.* got 1 and 2"),
    ):
        ebm.bounds(
            ebm.EnergyBased(lambda x: x.sum(-1), plane()),
            pushforward(known.line, ()),
            diffusion=True,
        )
    positive = ebm.EnergyBased(lambda x: x, dist.Exponential(torch.tensor(1.0)))
    exponential = pushforward(lambda xp, z: xp.exp(z), ())
    with pytest.raises(ValueError, match="Expected a distribution on all real numbers"):
        ebm.bounds(positive, exponential, diffusion=True)
    batch = ebm.EnergyBased(lambda x: x, dist.Normal(torch.zeros(3), 1.0))
    with pytest.raises(ValueError, match="one base for all batch elements"):
        ebm.bounds(batch, exponential)
    broken = ebm.EnergyBased(lambda x: x * np.nan, event_shape=())
    with pytest.raises(ValueError, match="NaN .*on 1000 of 1000"):
        ebm.bounds(broken, exponential)
