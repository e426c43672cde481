import math

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from brackets import LOG_FACTOR, exact_draws, log_normalizer
from brackets_numpyro import mixture, network, quartic
from jax import random
from numpyro.distributions import constraints

import pyro_ebm.numpyro as ebm
from pyro_ebm.numpyro.evidence import annealing, quadrature

KEY = random.key(0)
# Tuning starts far off.
SAMPLER = ebm.MALA(1e-3)
STUCK = ebm.MALA(1e3, target_acceptance=None)


def gaussian(num_dims, precision=3.0):
    """log Z = -num_dims / 2 * log(1 + precision)."""
    base = dist.Normal(jnp.zeros(num_dims), 1.0).to_event(1)
    return ebm.EnergyBased(lambda x: 0.5 * precision * (x**2).sum(-1), base)


def flat_quartic():
    return ebm.EnergyBased(lambda x: x**2 / 2 + x**4 / 4, event_shape=())


def contains(result, truth):
    return bool(((result.lower < truth) & (truth < result.upper)).all())


def test_a_bracket_contains_the_truth_and_a_bad_one_is_wide_and_warns():
    options = {"num_samples": 200, "sampler": SAMPLER}
    result = ebm.log_normalizer(KEY, mixture(16), num_temperatures=200, **options)
    assert contains(result, LOG_FACTOR)
    assert result.upper - result.lower < 1
    assert abs(result.estimate - LOG_FACTOR) < 4 * result.standard_error
    assert result.log_weights.shape == result.reverse_log_weights.shape == (200,)
    options["num_temperatures"] = 2
    with pytest.warns(UserWarning, match=r"log Z of EnergyBased\(_mixture.* worth \d\.\d equal"):
        result = ebm.log_normalizer(KEY, mixture(16), **options)
    assert contains(result, LOG_FACTOR)
    assert result.upper == result.standard_error == math.inf
    # Exact draws bound from above in any case.
    draws = jnp.asarray(exact_draws(200, 16, seed=0))
    with (
        pytest.warns(UserWarning, match="too few to rely on"),
        pytest.warns(UserWarning, match="only known to lie between .* nats apart"),
    ):
        result = ebm.log_normalizer(KEY, mixture(16), draws=draws, **options)
    assert contains(result, LOG_FACTOR)
    assert 1 < result.upper - result.lower < math.inf
    assert abs(result.estimate - LOG_FACTOR) < 2 * result.standard_error < math.inf


@pytest.mark.parametrize("method", ["importance", "grid"])
def test_quartic(method):
    result = ebm.log_normalizer(KEY, quartic(), method=method)
    assert contains(result, log_normalizer("quartic"))
    assert result.estimate == pytest.approx(log_normalizer("quartic"), abs=0.05)
    assert result.standard_error < 0.05


def test_mixture_on_a_grid_and_by_importance_bounded_by_exact_draws():
    grid = ebm.log_normalizer(KEY, mixture(2), method="grid")
    assert contains(grid, LOG_FACTOR)
    assert grid.upper - grid.lower < 1e-3
    draws = jnp.asarray(exact_draws(1000, 2, seed=0))
    result = ebm.log_normalizer(KEY, mixture(2), method="importance", draws=draws)
    assert contains(result, LOG_FACTOR)
    assert result.upper - result.lower < 1


def test_grid_needs_no_base():
    truth = log_normalizer("quartic") + 0.5 * math.log(2 * math.pi)
    assert truth == pytest.approx(0.66024, abs=1e-5)
    result = ebm.log_normalizer(KEY, flat_quartic(), method="grid")
    assert contains(result, truth)
    assert result.upper - result.lower < 1e-3
    positive = constraints.independent(constraints.positive, 1)
    far = ebm.EnergyBased(
        lambda x: 50 * ((x - 30) ** 2).sum(-1), event_shape=(2,), support=positive
    )
    draws = 30 + jnp.linspace(-1, 1, 10)[:, None] * jnp.ones(2)
    assert ebm.log_normalizer(KEY, far, method="grid", draws=draws).estimate == pytest.approx(
        math.log(math.pi / 50), abs=1e-3
    )


def test_network_over_many_runs_and_new_parameters_compile_nothing_anew():
    options = {"num_samples": 150, "num_temperatures": 40, "num_moves": 40}
    compiled_functions = (
        annealing._pilot_run,
        annealing.walk,
        annealing.make_draws,
        quadrature._log_density_of_chunk,
    )
    compiled = []
    for factor in (0.5, 1.0):
        grid = ebm.log_normalizer(KEY, network(factor=factor), method="grid")
        assert grid.upper - grid.lower < 1e-3
        # The elements of a batch are runs of their own.
        runs = ebm.log_normalizer(KEY, network((24,), factor), **options)
        compiled.append([function._cache_size() for function in compiled_functions])
    assert compiled[0] == compiled[1]
    truth = log_normalizer("network")
    assert contains(grid, truth)
    assert (runs.lower < truth).sum() >= 22
    assert (runs.upper > truth).sum() >= 22
    scores = (runs.estimate - truth) / runs.standard_error
    assert 0.6 < (scores**2).mean() ** 0.5 < 1.4
    assert jnp.median(runs.upper - runs.lower) < 0.7
    assert (runs.estimate[1:] != runs.estimate[:-1]).all()


def test_weights_are_unbiased_even_if_stuck_in_batches_with_forbidden_values():
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


def test_draws_are_chosen_by_their_weights():
    weights = jnp.array([[0.0, 0.3], [0.7, 0.1], [0.2, 0.0], [0.1, 0.6]])
    chosen = jax.jit(annealing._chosen)(KEY, jnp.log(jnp.tile(weights, (250, 1))))
    assert chosen.shape == (1000, 2)
    for column, expected in zip(chosen.T, weights.T, strict=True):
        shares = jnp.bincount(column % 4, length=4) / 1000
        assert jnp.allclose(shares, expected, atol=5e-2)


def test_a_box_that_does_not_close_is_named():
    flat = ebm.EnergyBased(lambda x: 0 * x, event_shape=())
    with pytest.warns(UserWarning, match="No box closes around EnergyBased"):
        result = ebm.log_normalizer(KEY, flat, method="grid", draws=jnp.linspace(-1, 1, 9))
    assert result.upper == math.inf


def test_inside_jit():
    @jax.jit
    def estimate(precision):
        base = dist.Normal(0.0, 1.0)
        distribution = ebm.EnergyBased(lambda x: 0.5 * precision * x**2, base)
        return ebm.log_normalizer(KEY, distribution, method="importance")

    result = estimate(3.0)
    assert abs(result.estimate + math.log(2)) < 4 * result.standard_error


class OnlySamples(dist.Normal):
    def log_prob(self, value):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("distribution", "options", "message"),
    [
        (flat_quartic(), {}, "with a base to start from, got base=None"),
        (quartic(), {"method": "magic"}, "`method` to be one of .*, got 'magic'"),
        (quartic(), {"num_samples": 0}, "`num_samples` to be an integer of at least 1, got 0"),
        (quartic(), {"num_moves": 0}, "`num_moves` to be an integer of at least 1, got 0"),
        (quartic(), {"sampler": ebm.Langevin(0.1)}, "accepts or rejects .* got Langevin"),
        (quartic(), {"sampler": ebm.KineticLangevin(0.1)}, "accepts or rejects .* got Kinetic"),
        (quartic(), {"draws": jnp.zeros((5, 1))}, r"`draws` of shape .* \(\) .*got \(5, 1\)"),
        (
            quartic(),
            {"method": "importance", "draws": jnp.full(5, jnp.nan)},
            "numbers at `draws`, got NaN .* 5 of 5",
        ),
        (gaussian(4), {"method": "grid"}, "event of 1 to 3 dimensions .*got 4"),
        (
            ebm.EnergyBased(lambda x: x, OnlySamples(0.0, 1.0)),
            {},
            "base with sample and log_prob, got .*OnlySamples",
        ),
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


def test_importance_needs_no_density():
    distribution = ebm.EnergyBased(lambda x: 0.5 * x**2, OnlySamples(0.0, 1.0))
    result = ebm.log_normalizer(KEY, distribution, method="importance")
    assert result.estimate == pytest.approx(-0.5 * math.log(2), abs=0.1)
    assert result.upper == math.inf
