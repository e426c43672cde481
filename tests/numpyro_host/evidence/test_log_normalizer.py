import math

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from helpers import normalizers as known
from helpers.compilations import counted_compilations
from jax import random
from jax.tree_util import Partial
from numpyro.distributions import constraints

import pyro_ebm.numpyro as ebm
from pyro_ebm.numpyro.evidence.annealing import resample

KEY = random.key(0)
MIXTURE, NETWORK, QUARTIC = known.LOG_Z_MIXTURE, known.LOG_Z_NETWORK, known.LOG_Z_QUARTIC
# Tuning starts far off.
SAMPLER = ebm.MALA(1e-3)
STUCK = ebm.MALA(1e3, target_accept_prob=None)


def quartic():
    return ebm.EnergyBased(known.quartic, dist.Normal(0.0, 1.0))


def flat_quartic():
    return ebm.EnergyBased(lambda x: x**2 / 2 + x**4 / 4, event_shape=())


def on_wide_base(energy, arrays, shape):
    base = dist.Normal(jnp.zeros(shape), known.BASE_SCALE).to_event(1)
    return ebm.EnergyBased(Partial(energy, *map(jnp.asarray, arrays)), base)


def mixture(num_dims):
    arrays = known.centers(num_dims), known.offsets(num_dims)
    return on_wide_base(known.mixture, arrays, (num_dims,))


def network(batch_shape=(), factor=1.0):
    arrays = known.W, known.B, factor * known.V
    return on_wide_base(known.network, arrays, (*batch_shape, 2))


def exact_draws(num_draws, num_dims):
    return jnp.asarray(known.exact_draws(num_draws, num_dims, seed=0))


def contains(result, truth):
    return bool(((result.lower < truth) & (truth < result.upper)).all())


def test_good_and_bad_brackets_contain_the_truth():
    options = {"num_samples": 200, "sampler": SAMPLER}
    result = ebm.log_normalizer(KEY, mixture(16), num_temperatures=200, **options)
    assert contains(result, MIXTURE)
    assert result.upper - result.lower < 1
    assert abs(result.estimate - MIXTURE) < 4 * result.standard_error
    assert result.log_weights.shape == result.reverse_log_weights.shape == (200,)
    options["num_temperatures"] = 2
    with pytest.warns(UserWarning, match=r"log Z of EnergyBased\(mixture.* is \d\.\d of 200"):
        result = ebm.log_normalizer(KEY, mixture(16), **options)
    assert contains(result, MIXTURE)
    assert result.upper == result.standard_error == math.inf
    # Exact draws bound from above in any case.
    with (
        pytest.warns(UserWarning, match="too few to rely on"),
        pytest.warns(UserWarning, match="only known to lie between .* nats apart"),
    ):
        result = ebm.log_normalizer(KEY, mixture(16), draws=exact_draws(200, 16), **options)
    assert contains(result, MIXTURE)
    assert 1 < result.upper - result.lower < math.inf
    assert abs(result.estimate - MIXTURE) < 2 * result.standard_error < math.inf


@pytest.mark.parametrize("method", ["importance", "grid"])
def test_quartic(method):
    result = ebm.log_normalizer(KEY, quartic(), method=method)
    assert contains(result, QUARTIC)
    assert result.estimate == pytest.approx(QUARTIC, abs=0.05)
    assert result.standard_error < 0.05


def test_mixture_on_a_grid_and_by_importance_with_exact_draws():
    grid = ebm.log_normalizer(KEY, mixture(2), method="grid")
    assert contains(grid, MIXTURE)
    assert grid.upper - grid.lower < 1e-3
    draws = exact_draws(1000, 2)
    result = ebm.log_normalizer(KEY, mixture(2), method="importance", draws=draws)
    assert contains(result, MIXTURE)
    assert result.upper - result.lower < 1


def test_grid_needs_no_base():
    truth = QUARTIC + 0.5 * math.log(2 * math.pi)
    assert truth == pytest.approx(0.66024, abs=1e-5)
    result = ebm.log_normalizer(KEY, flat_quartic(), method="grid")
    assert contains(result, truth)
    assert result.upper - result.lower < 1e-3
    far = ebm.EnergyBased(
        lambda x: 50 * ((x - 30) ** 2).sum(-1),
        event_shape=(2,),
        support=constraints.independent(constraints.positive, 1),
    )
    draws = 30 + jnp.linspace(-1, 1, 10)[:, None] * jnp.ones(2)
    result = ebm.log_normalizer(KEY, far, method="grid", draws=draws)
    assert result.estimate == pytest.approx(math.log(math.pi / 50), abs=1e-3)


def test_network_over_many_runs():
    # In 576 runs of 12 seeds 69 effective samples or more: far from the 10 that trigger a warning,
    # on any processor.
    options = {"num_samples": 300, "num_temperatures": 160, "num_moves": 40}
    compilations = []
    for factor in (0.5, 1.0):
        with counted_compilations() as compiled:
            grid = ebm.log_normalizer(KEY, network(factor=factor), method="grid")
            # The elements of a batch are runs of their own.
            runs = ebm.log_normalizer(KEY, network((48,), factor), **options)
        compilations.append(len(compiled))
        assert grid.upper - grid.lower < 1e-3
    # New parameters compile nothing again.
    assert compilations[0] > compilations[1] == 0
    assert contains(grid, NETWORK)
    assert runs.effective_sample_size.min() > 30
    assert (runs.lower < NETWORK).sum() >= 45
    assert (runs.upper > NETWORK).sum() >= 45
    # The errors of both directions are added up, which is too much for these chains: 0.7 expected.
    scores = (runs.estimate - NETWORK) / runs.standard_error
    assert 0.5 < (scores**2).mean() ** 0.5 < 1.0
    assert jnp.median(runs.upper - runs.lower) < 0.4
    assert (runs.estimate[1:] != runs.estimate[:-1]).all()


def test_weights_of_stuck_chains_are_unbiased():
    # exp(-x) where x < 1, times an exponential.
    rates = jnp.array([1.0, 3.0])
    distribution = ebm.EnergyBased(lambda x: jnp.where(x < 1, x, jnp.inf), dist.Exponential(rates))
    truth = jnp.log(rates / (rates + 1)) + jnp.log1p(-jnp.exp(-rates - 1))
    options = {"num_samples": 20_000, "num_temperatures": 2, "num_moves": 2, "sampler": STUCK}
    with pytest.warns(UserWarning, match=r"MALA\(step_size=1000.* accepted 0.0% of the moves"):
        result = ebm.log_normalizer(KEY, distribution, **options)
    assert result.lower.shape == result.upper.shape == (2,)
    assert contains(result, truth)
    assert jnp.allclose(jnp.isneginf(result.log_weights).mean(0), jnp.exp(-rates), atol=0.02)
    weights = jnp.exp(result.log_weights - truth)
    assert (abs(weights.mean(0) - 1) < 4 * weights.std(0) / math.sqrt(20_000)).all()
    assert (weights.std(0) > 0.2).all()
    grid = ebm.log_normalizer(KEY, distribution, method="grid")
    assert jnp.allclose(grid.estimate, truth, atol=0.01)


def test_resampling_follows_the_weights():
    weights = jnp.array([[0.0, 0.3], [0.7, 0.1], [0.2, 0.0], [0.1, 0.6]])
    chosen = jax.jit(resample)(KEY, jnp.log(jnp.tile(weights, (250, 1))))
    assert chosen.shape == (1000, 2)
    for column, expected in zip(chosen.T, weights.T, strict=True):
        shares = jnp.bincount(column % 4, length=4) / 1000
        assert jnp.allclose(shares, expected, atol=5e-2)


def test_a_density_without_a_box_is_named():
    flat = ebm.EnergyBased(lambda x: 0 * x, event_shape=())
    with pytest.warns(UserWarning, match="No box encloses EnergyBased"):
        result = ebm.log_normalizer(KEY, flat, method="grid", draws=jnp.linspace(-1, 1, 9))
    assert result.upper == math.inf


@pytest.mark.parametrize("method", ["importance", "annealed"])
def test_inside_jit_and_vmap(method):
    options = {"num_samples": 200, "num_temperatures": 5, "num_moves": 5}

    @jax.jit
    @jax.vmap
    def estimate(precision):
        base = dist.Normal(0.0, 1.0)
        distribution = ebm.EnergyBased(lambda x: 0.5 * precision * x**2, base)
        return ebm.log_normalizer(KEY, distribution, method=method, **options)

    precisions = jnp.array([1.0, 3.0])
    result = estimate(precisions)
    truth = -0.5 * jnp.log1p(precisions)
    assert (abs(result.estimate - truth) < 4 * result.standard_error).all()
    assert "\n[1]: log Z = -0." in str(result)


@pytest.mark.parametrize(
    ("distribution", "options", "message"),
    [
        (flat_quartic(), {}, "with a base to start from, got base=None"),
        (quartic(), {"sampler": ebm.Langevin(0.1)}, "accepts or rejects .* got Langevin"),
        (quartic(), {"draws": jnp.zeros((5, 1))}, r"`draws` of shape .* \(\) .*got \(5, 1\)"),
        (
            quartic(),
            {"method": "importance", "draws": jnp.full(5, jnp.nan)},
            "numbers at `draws`, got NaN .* 5 of 5",
        ),
        (mixture(4), {"method": "grid"}, "event of 1 to 3 dimensions .*got 4"),
        (
            ebm.EnergyBased(lambda x: jnp.sqrt(x - 1), dist.Normal(0.0, 1.0)),
            {"method": "importance"},
            "numbers at draws of the base, got NaN .* of 1000 paths",
        ),
    ],
)
def test_errors(distribution, options, message):
    with pytest.raises(ValueError, match=message):
        ebm.log_normalizer(KEY, distribution, **options)


class OnlySamples(dist.Normal):
    def log_prob(self, value):
        raise NotImplementedError


def test_importance_needs_no_density():
    distribution = ebm.EnergyBased(lambda x: 0.5 * x**2, OnlySamples(0.0, 1.0))
    with pytest.raises(ValueError, match=r"base with sample and log_prob, got .*OnlySamples"):
        ebm.log_normalizer(KEY, distribution)
    result = ebm.log_normalizer(KEY, distribution, method="importance")
    assert result.estimate == pytest.approx(-0.5 * math.log(2), abs=0.1)
    assert result.upper == math.inf
