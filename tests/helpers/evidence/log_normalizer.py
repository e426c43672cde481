import math

import numpy as np
import pytest

from helpers import normalizers as known
from helpers.normalizers import contains

MIXTURE, NETWORK, QUARTIC = known.LOG_Z_MIXTURE, known.LOG_Z_NETWORK, known.LOG_Z_QUARTIC


def quartic(host):
    return host.ebm.EnergyBased(known.quartic, host.dist.Normal(0.0, 1.0))


def flat_quartic(host):
    return host.ebm.EnergyBased(lambda x: x**2 / 2 + x**4 / 4, event_shape=())


def on_wide_base(host, energy, arrays, shape):
    base = host.dist.Normal(host.array(np.zeros(shape)), known.BASE_SCALE).to_event(1)
    return host.ebm.EnergyBased(host.bind(energy, *map(host.array, arrays)), base)


def mixture(host, num_dims, batch_shape=()):
    arrays = known.centers(num_dims), known.offsets(num_dims)
    return on_wide_base(host, known.mixture, arrays, (*batch_shape, num_dims))


def network(host, batch_shape=(), factor=1.0):
    arrays = known.W, known.B, factor * known.V
    return on_wide_base(host, known.network, arrays, (*batch_shape, 2))


def exact_draws(host, num_draws, num_dims):
    return host.array(known.exact_draws(num_draws, num_dims, seed=0))


def check_bracket(host, num_dims, num_samples, num_temperatures, step_size):
    result = host.log_normalizer(
        mixture(host, num_dims),
        num_samples=num_samples,
        num_temperatures=num_temperatures,
        sampler=host.ebm.MALA(step_size),
    )
    assert contains(result, MIXTURE)
    assert result.upper - result.lower < 1
    assert abs(result.estimate - MIXTURE) < 4 * result.standard_error
    assert result.log_weights.shape == result.reverse_log_weights.shape == (num_samples,)


@pytest.mark.once
def test_brackets_contain_the_truth(host):
    # Tuning starts far off.
    check_bracket(host, 16, 200, 200, step_size=1e-3)


def test_many_scales_in_one_density(host):
    """Steps are in units of their own for each coordinate, at each temperature."""
    base, scales = host.normal((6,), scale=3.0), np.geomspace(0.03, 3.0, 6)
    tilt = host.array(1 / scales**2 - 1 / 9)
    density = host.ebm.EnergyBased(lambda x: (tilt * x**2).sum(-1) / 2, base)
    truth = np.log(scales / 3).sum()
    result = host.log_normalizer(density, num_samples=500)
    assert contains(result, truth)
    assert abs(result.estimate - truth) < 4 * result.standard_error < 0.8


@pytest.mark.parametrize("method", ["annealed", "importance", "grid"])
def test_quartic(host, method):
    result = host.log_normalizer(quartic(host), method=method, num_temperatures=20)
    assert contains(result, QUARTIC)
    assert float(result.estimate) == pytest.approx(QUARTIC, abs=0.05)
    assert result.standard_error < 0.05


@pytest.mark.once
def test_grid_needs_no_base(host):
    truth = QUARTIC + 0.5 * math.log(2 * math.pi)
    assert truth == pytest.approx(0.66024, abs=1e-5)
    result = host.log_normalizer(flat_quartic(host), method="grid")
    assert contains(result, truth)
    assert result.upper - result.lower < 1e-3
    constraints = host.dist.constraints
    far = host.ebm.EnergyBased(
        lambda x: 50 * ((x - 30) ** 2).sum(-1),
        event_shape=(2,),
        support=constraints.independent(constraints.positive, 1),
    )
    around = host.array(30 + np.linspace(-1, 1, 10)[:, None] * np.ones(2))
    for draws in (None, around):
        result = host.log_normalizer(far, method="grid", draws=draws)
        assert float(result.estimate) == pytest.approx(math.log(math.pi / 50), abs=1e-3)


def test_grid_takes_a_context_without_a_base(host):
    distribution = host.ebm.EnergyBased(
        lambda x, c: 0.5 * (x - c) ** 2, event_shape=(), context=host.array([0.0, 5.0])
    )
    for draws in (None, host.array(np.zeros((3, 2)))):
        result = host.log_normalizer(distribution, method="grid", draws=draws)
        np.testing.assert_allclose(result.estimate, 0.5 * math.log(2 * math.pi) * np.ones(2), 1e-4)


def test_networks_and_mixtures_on_a_grid(host):
    for distribution, truth in ((network(host), NETWORK), (mixture(host, 2), MIXTURE)):
        grid = host.log_normalizer(distribution, method="grid")
        assert contains(grid, truth)
        assert grid.upper - grid.lower < 1e-3


def check_bad_run(host, **options):
    with pytest.warns(UserWarning, match=r"log Z of EnergyBased\(.* is \d\.\d of 200"):
        result = host.log_normalizer(mixture(host, 16), num_samples=200, **options)
    # An unbiased estimate is over e^4 times the truth in at most one of 50 runs; it is 2 above.
    assert result.lower < MIXTURE + 2
    assert result.upper == result.standard_error == math.inf


@pytest.mark.once
def test_few_temperatures_widen_the_bracket_and_warn(host):
    check_bad_run(host, num_temperatures=2)


@pytest.mark.once
def test_exact_draws_bound_from_above_in_any_case(host):
    options = {"num_samples": 200, "num_temperatures": 2, "draws": exact_draws(host, 200, 16)}
    with (
        pytest.warns(UserWarning, match="too few to rely on"),
        pytest.warns(UserWarning, match="only known to lie between .* nats apart"),
    ):
        result = host.log_normalizer(mixture(host, 16), **options)
    assert contains(result, MIXTURE)
    assert 1 < result.upper - result.lower < math.inf
    assert abs(result.estimate - MIXTURE) < 2 * result.standard_error < math.inf
    options = {"method": "importance", "draws": exact_draws(host, 1000, 2)}
    result = host.log_normalizer(mixture(host, 2), **options)
    assert contains(result, MIXTURE)
    assert result.upper - result.lower < 1


@pytest.mark.once
def test_weights_of_stuck_chains_are_unbiased(host):
    # exp(-x) where x < 1, times an exponential; a batch of two.
    rates, num_samples = np.array([1.0, 3.0]), 20_000
    distribution = host.ebm.EnergyBased(
        lambda x: host.xp.where(x < 1, x, math.inf), host.dist.Exponential(host.array(rates))
    )
    truth = np.log(rates / (rates + 1)) + np.log1p(-np.exp(-rates - 1))
    stuck = host.ebm.MALA(1e3, target_accept_prob=None)
    options = {"num_samples": num_samples, "num_temperatures": 2, "num_moves": 2}
    with pytest.warns(UserWarning, match=r"MALA\(step_size=1000.* accepted 0.0% of the moves"):
        result = host.log_normalizer(distribution, sampler=stuck, **options)
    assert result.lower.shape == result.upper.shape == (2,)
    assert contains(result, host.array(truth))
    log_weights = np.asarray(result.log_weights)
    np.testing.assert_allclose(np.isneginf(log_weights).mean(0), np.exp(-rates), atol=0.02)
    weights = np.exp(log_weights - truth)
    assert (abs(weights.mean(0) - 1) < 4 * weights.std(0) / math.sqrt(num_samples)).all()
    assert (weights.std(0) > 0.2).all()
    grid = host.log_normalizer(distribution, method="grid")
    np.testing.assert_allclose(grid.estimate, truth, atol=0.01)


def test_resampling_follows_the_weights(host):
    weights = np.array([[0.0, 0.3], [0.7, 0.1], [0.2, 0.0], [0.1, 0.6]])
    with np.errstate(divide="ignore"):
        chosen = np.asarray(host.resample(host.array(np.log(np.tile(weights, (250, 1))))))
    assert chosen.shape == (1000, 2)
    for column, expected in zip(chosen.T, weights.T, strict=True):
        shares = np.bincount(column % 4, minlength=4) / 1000
        np.testing.assert_allclose(shares, expected, atol=5e-2)


def test_a_density_without_a_box_is_named(host):
    flat = host.ebm.EnergyBased(lambda x: 0 * x, event_shape=())
    draws = host.array(np.linspace(-1, 1, 9))
    with pytest.warns(UserWarning, match="No box encloses EnergyBased"):
        result = host.log_normalizer(flat, method="grid", draws=draws)
    assert result.upper == math.inf


@pytest.mark.parametrize(
    ("family", "parameters"),
    [("Beta", (0.1, 0.1)), ("Beta", (1.0, 0.05)), ("Beta", (0.3, 0.3)), ("Gamma", (0.05, 1.0))],
)
def test_mass_that_numbers_cannot_resolve_is_named(host, family, parameters):
    flat = host.ebm.EnergyBased(lambda x: 0 * x, getattr(host.dist, family)(*parameters))
    with pytest.warns(UserWarning, match="No box encloses EnergyBased"):
        result = host.log_normalizer(flat, method="grid")
    assert result.lower < 0 < result.upper == math.inf


def test_mass_near_a_bound_that_numbers_resolve(host):
    flat = host.ebm.EnergyBased(lambda x: 0 * x, host.dist.Gamma(host.array([0.15, 2.0]), 1.0))
    result = host.log_normalizer(flat, method="grid")
    np.testing.assert_allclose(result.estimate, 0.0, atol=1e-4)
    assert (result.upper - result.lower < 1e-3).all()


def test_importance_needs_no_density(host):
    distribution = host.ebm.EnergyBased(lambda x: 0.5 * x**2, host.OnlySamples(0.0, 1.0))
    with pytest.raises(ValueError, match=r"base with sample and log_prob, got .*OnlySamples"):
        host.log_normalizer(distribution)
    result = host.log_normalizer(distribution, method="importance")
    assert float(result.estimate) == pytest.approx(-0.5 * math.log(2), abs=0.1)
    assert result.upper == math.inf


def test_errors(host):
    def refuses(message, distribution, **options):
        with pytest.raises(ValueError, match=message):
            host.log_normalizer(distribution, **options)

    distribution = quartic(host)
    refuses("with a base to start from, got base=None", flat_quartic(host))
    langevin = host.ebm.Langevin(0.1)
    refuses("accepts or rejects .* got Langevin", distribution, sampler=langevin)
    refuses(r"`draws` .* \(\) .*got \(5, 1\)", distribution, draws=host.array(np.zeros((5, 1))))
    nan = host.array(np.full(5, math.nan))
    refuses("numbers at `draws`.* 5 of 5", distribution, method="importance", draws=nan)
    refuses("event of 1 to 3 dimensions .*got 4", mixture(host, 4), method="grid")
    broken = host.ebm.EnergyBased(lambda x: (x - 1) ** 0.5, host.dist.Normal(0.0, 1.0))
    refuses("draws of the base, got NaN .* of 1000 paths", broken, method="importance")


@pytest.mark.parametrize("method", ["grid", "enumeration"])
def test_many_contexts_are_evaluated_in_parts(host, method):
    """500 contexts: 2,049 points of a line, or 1,024 values of ten bits."""
    sizes = []

    def energy(x, c):
        sizes.append(math.prod(c.shape))
        return c * (x.sum(-1) if method == "enumeration" else x**2)

    base = host.dist.Normal(0.0, 1.0)
    if method == "enumeration":
        base = host.dist.Bernoulli(host.array(np.full(10, 0.5))).to_event(1)
    contexts = np.linspace(0.5, 1.5, 500)
    law = host.ebm.EnergyBased(energy, base, context=host.array(contexts))
    found = np.asarray(host.log_normalizer(law, method=method, num_samples=32).estimate)
    exact = -0.5 * np.log1p(2 * contexts)
    if method == "enumeration":
        exact = 10 * np.log((1 + np.exp(-contexts)) / 2)
    np.testing.assert_allclose(found, exact, atol=1e-4)
    assert max(sizes) < 30_000
