"""Supports narrower than the base's: half-normals, and exp(-3 x) N(0, 4) on (0, 1)."""

import math
import warnings

import numpy as np
import pytest

from helpers.normalizers import contains

GRID = np.linspace(0, 1, 100_001)
LOG_NORMALIZER = math.log(
    np.trapezoid(np.exp(-3 * GRID - GRID**2 / 8), GRID) / math.sqrt(8 * math.pi)
)


def half_normal(host, energy=lambda x: 0 * x, **options):
    options = {"support": host.constraints.positive, **options}
    return host.ebm.EnergyBased(energy, host.dist.Normal(0.0, 1.0), **options)


def tilted(host, **options):
    unit = host.constraints.interval(0.0, 1.0)
    return host.ebm.EnergyBased(
        lambda x, *c: 3 * x, host.dist.Normal(0.0, 2.0), support=unit, **options
    )


# --- log-normalizers ---

METHODS = ["importance", *(pytest.param(m, marks=pytest.mark.once) for m in ("annealed", "grid"))]


@pytest.mark.parametrize("method", METHODS)
def test_log_normalizer(host, method):
    assert pytest.approx(-2.7783, abs=5e-5) == LOG_NORMALIZER
    for distribution, exact in ((half_normal(host), math.log(0.5)), (tilted(host), LOG_NORMALIZER)):
        found = host.log_normalizer(distribution, method=method)
        error = 1e-4 if method == "grid" else float(found.standard_error)
        assert error < 0.12
        assert float(found.estimate) == pytest.approx(exact, abs=3 * error)
        assert contains(found, exact)


@pytest.mark.parametrize("method", METHODS)
def test_every_context_has_its_log_normalizer(host, method):
    conditional = tilted(host, context=host.array(np.arange(3.0)))
    found = host.log_normalizer(conditional, method=method)
    assert found.estimate.shape == (3,)
    np.testing.assert_allclose(host.to_numpy(found.estimate), LOG_NORMALIZER, atol=0.3)


@pytest.mark.once
def test_annealed_error_counts_the_share_of_the_base_inside(host):
    """An orthant in four dimensions has a share of 1/16, known from 10,000 draws."""
    positive = host.constraints.independent(host.constraints.positive, 1)
    flat = host.ebm.EnergyBased(lambda x: 0 * x.sum(-1), host.normal((4,)), support=positive)
    found = host.log_normalizer(flat)
    assert float(found.standard_error) == pytest.approx(math.sqrt(15 / 10_000), rel=0.1)
    assert float(found.estimate) == pytest.approx(-4 * math.log(2), abs=3 * 0.0387)


def test_annealing_needs_some_draws_inside(host):
    far = half_normal(host, support=host.constraints.greater_than(30.0))
    with pytest.raises(ValueError, match=r"some of 10000 draws of the base .* got none"):
        host.log_normalizer(far)


def test_pushforward_base(host):
    base = host.ebm.Pushforward(host.dist.Normal(0.0, 1.0), lambda z: 2 * z)
    half = host.ebm.EnergyBased(lambda x: 0 * x, base, support=host.constraints.positive)
    z = host.array([-1.0, 1.0])
    expected = [math.inf, 0.5 + 0.5 * math.log(2 * math.pi)]
    np.testing.assert_allclose(host.to_numpy(half.latent.potential(z)), expected, rtol=1e-6)
    found = host.log_normalizer(half, method="importance")
    error = float(found.standard_error)
    assert float(found.estimate) == pytest.approx(math.log(0.5), abs=3 * error)


@pytest.mark.parametrize("has_base", [True, False])
def test_a_support_of_numbers_is_that_of_each_element(host, has_base):
    base = host.normal((2,)) if has_base else None
    options = {"support": host.constraints.positive, "event_shape": (2,)}
    prior = host.ebm.EnergyBased(lambda x: 0.5 * (x**2).sum(-1), base, **options)
    draws = host.sample(prior, (50,))
    assert draws.shape == (50, 2)
    assert (draws > 0).all()
    found = host.log_normalizer(prior, method="grid")
    exact = math.log(1 / 8) if has_base else math.log(math.pi / 2)
    assert float(found.estimate) == pytest.approx(exact, abs=1e-4)


def test_rows_with_bounds_of_their_own(host):
    """As contexts are: a law, draws and a log-normalizer for each."""
    top = np.array([0.5, 1.0, 2.0])
    support = host.constraints.interval(0.0, host.array(top))
    rows = half_normal(host, support=support)
    assert rows.batch_shape == host.without_plates(rows.expand((2, 3))).batch_shape == (3,)
    draws = host.initial_values(rows, (3,))
    assert draws.shape == (3, 3)
    assert (draws < top).all()
    found = host.log_normalizer(rows, method="grid").estimate
    exact = [math.log(math.erf(x / math.sqrt(2)) / 2) for x in top]
    np.testing.assert_allclose(host.to_numpy(found), exact, atol=1e-4)
    pair = host.dist.Normal(host.array([0.0, 1.0]), 1.0)
    with pytest.raises(ValueError, match=r"`support` of the batch shape of .*\(2,\), got \(3,"):
        host.ebm.EnergyBased(lambda x: x, pair, support=support)
    support = host.constraints.interval(0.0, host.array(top[:, None]))
    flat = host.ebm.EnergyBased(lambda x: 0 * x[:, 0], event_shape=(2,), support=support)
    assert flat.batch_shape == host.without_plates(flat).batch_shape == (3,)


# --- starts and draws ---


def test_starts_are_draws_of_the_base_inside(host):
    start = host.initial_values(half_normal(host).expand((2,)), (4000,))
    assert start.shape == (4000, 2)
    assert start.min() > 0
    assert len(np.unique(start)) > 0.99 * start.size  # independent
    np.testing.assert_allclose(start.mean(0), math.sqrt(2 / math.pi), atol=4 * 0.6 / 63)
    conditional = tilted(host, context=host.array(np.arange(3.0)))
    start = host.initial_values(conditional.expand((5, 3)), (7,))
    assert start.shape == (7, 5, 3)
    assert 0 < start.min() < start.max() < 1


def test_starts_are_shared_where_few_draws_are_inside(host):
    """Some 950 of 4,000: beyond three, where the mean is 3.283."""
    tail = half_normal(host, support=host.constraints.greater_than(3.0))
    start = host.initial_values(tail, (4000,))
    assert start.mean() == pytest.approx(3.2831, abs=5 * 0.27 / 950**0.5)


def test_starts_far_from_the_base_are_normal_in_unconstrained_space(host):
    far = half_normal(host, support=host.constraints.greater_than(30.0))
    start = np.log(host.initial_values(far, (4000,)) - 30)
    assert start.mean() == pytest.approx(0, abs=4 / 63)
    assert start.std() == pytest.approx(1, abs=0.05)


def test_draws(host):
    sampler = host.ebm.MALA(0.5)
    draws = host.sample(half_normal(host, sampler=sampler, num_sampler_steps=20), (4000,))
    assert draws.min() > 0
    assert draws.mean() == pytest.approx(math.sqrt(2 / math.pi), abs=4 * 0.603 / 63)


def test_populations_start_inside(host):
    """Where most of the base is outside: a half-normal in four dimensions, and a mode in a tail."""
    positive = host.constraints.independent(host.constraints.positive, 1)
    flat = host.ebm.EnergyBased(lambda x: 0 * x.sum(-1), host.normal((4,)), support=positive)
    draws = host.sample(flat, (4000,))
    assert draws.mean() == pytest.approx(math.sqrt(2 / math.pi), abs=5 * 0.603 / 126)
    tail = half_normal(
        host,
        lambda x: -3 * host.xp.exp(-0.5 * ((x - 3) / 0.2) ** 2),
        support=host.constraints.greater_than(2.0),
    )
    draws = host.run_smc(host.ebm.SMC(), tail, num_samples=4000)
    x = np.linspace(2, 8, 60_001)
    mass = np.exp(3 * np.exp(-0.5 * ((x - 3) / 0.2) ** 2) - x**2 / 2) / math.sqrt(2 * math.pi)
    log_z, share = math.log(np.trapezoid(mass, x)), mass[x > 2.7].sum() / mass.sum()
    assert float(draws.log_normalizer) == pytest.approx(log_z, abs=4 * float(draws.standard_error))
    assert (host.to_numpy(draws.samples) > 2.7).mean() == pytest.approx(share, abs=0.05)


@pytest.mark.once
def test_few_starts_inside_are_few_ancestors(host):
    """Of two coordinates one is in a tail, where copies start; the other has two modes."""
    sides = host.array([3.2, -10.0]), host.array([10.0, 10.0])
    box = host.constraints.independent(host.constraints.interval(*sides), 1)
    modes = lambda x: 20 * (x[:, 1] ** 2 - 1) ** 2  # noqa: E731
    far = host.ebm.EnergyBased(modes, host.normal((2,)), support=box)
    # 9 of 12,800 draws of the base are inside.
    with pytest.warns(UserWarning, match="ancestors"):
        draws = host.run_smc(host.ebm.SMC(num_particles=64), far, num_samples=64)
    assert 1 <= float(draws.effective_ancestors) < 20
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = host.log_normalizer(far, method="annealed", num_samples=256, num_temperatures=20)
    assert float(found.effective_sample_size) < 20


def test_populations_of_a_generator_start_inside(host):
    base = host.ebm.Pushforward(host.normal((2,)), lambda z: z)
    positive = host.constraints.independent(host.constraints.positive, 1)
    options = {"support": positive, "sampler": host.ebm.MALA()}
    flat = host.ebm.EnergyBased(lambda x: 0 * x[:, 0], base, **options)
    draws = host.run_smc(host.ebm.SMC(), flat, num_samples=2000)
    assert float(draws.log_normalizer) == pytest.approx(-2 * math.log(2), abs=0.15)
    assert host.sample(flat, (500,)).min() > 0


def test_populations_need_some_draws_inside(host):
    far = half_normal(host, support=host.constraints.greater_than(8.0))
    with pytest.raises(ValueError, match=r"some of 10000 draws of the base .* got none"):
        host.run_smc(host.ebm.SMC(), far)
    with pytest.raises(ValueError, match="infinite at all draws of the base, as outside of"):
        host.sample(far, (100,))


# --- supports that the host takes to be wider ---


def test_a_transformed_base_has_the_image_of_its_support(host):
    """1 - 2 x with x exponential: the hosts say all numbers, with a density that rises for ever."""
    flip = host.dist.transforms.AffineTransform(1.0, -2.0)
    base = host.dist.TransformedDistribution(host.dist.Exponential(1.0), [flip])
    options = {"context": host.array([1.0, 2.0])}
    tilted = host.ebm.EnergyBased(lambda y, c: c * (1 - y) / 2, base, **options)
    found = host.log_normalizer(tilted, method="grid").estimate
    np.testing.assert_allclose(host.to_numpy(found), np.log([1 / 2, 1 / 3]), atol=1e-4)
    draws = host.sample(tilted, (4000,))
    np.testing.assert_allclose(draws.mean(0), [0, 1 / 3], atol=5 / 63)
    both = host.ebm.Joint(x=base, y=base.expand((2,)).to_event(1))
    x = host.array([0.5, -1.0, 0.9])
    joined = both.join(x=x[0], y=x[1:])
    assert float(both.log_prob(joined)) > -8
    np.testing.assert_allclose(host.to_numpy(both.split(joined)["y"]), x[1:], rtol=1e-5)
    pair = host.dist.Exponential(host.array([1.0, 1.0])).to_event(1)
    base = host.dist.TransformedDistribution(pair, [flip])
    support = host.ebm.EnergyBased(lambda y: 0 * y[:, 0], base).support
    assert support.event_dim == 1
    assert support.check(host.array([[0.8, -1.0], [0.8, 2.0]])).tolist() == [True, False]


# --- energies outside ---


def test_energy_is_never_called_outside(host):
    """An energy that is NaN outside has a density of zero there, and no NaN in gradients."""
    x = host.array([[-1.0, 0.5], [2.0, -3.0]])

    def total(a):
        prior = half_normal(host, lambda x: a * host.xp.log(x), inverse_temperature=2.0)
        return host.xp.exp(-prior.potential(x)).sum()

    prior = half_normal(host, host.xp.log, validate_args=False)
    density = host.to_numpy(host.xp.exp(prior.log_prob(x)))
    inside = np.array([0.5, 2.0])
    normal = np.exp(-(inside**2) / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(density, [[0, 2 * normal[0]], [normal[1] / 2, 0]], rtol=1e-5)
    (gradient,) = host.gradients(total, 1.0)
    expected = (-2 * np.log(inside) * inside**-2.0 * normal).sum()
    assert float(gradient) == pytest.approx(expected, rel=1e-5)


def test_gradient_of_a_log_normalizer(host):
    """E(x) = a sqrt(x), of infinite slope at the bound and NaN beyond it."""
    draws = host.array(np.random.default_rng(0).normal(size=1000))

    def log_normalizer(a):
        prior = half_normal(host, lambda x: a * host.xp.sqrt(x))
        return host.xp.log(host.xp.exp(-prior.potential(draws)).mean())

    (gradient,) = host.gradients(log_normalizer, 1.0)
    inside = host.to_numpy(draws)[host.to_numpy(draws) > 0]
    weights = np.exp(-np.sqrt(inside) - inside**2 / 2)
    assert float(gradient) == pytest.approx(-np.average(np.sqrt(inside), weights=weights), rel=1e-4)


def test_other_supports_cost_nothing(host):
    constraints, base = host.constraints, host.normal((2,))
    for support in (None, base.support, constraints.independent(constraints.real, 1)):
        prior = host.ebm.EnergyBased(lambda x: x.sum(-1), base, support=support)
        assert not prior._is_truncated
    assert not host.ebm.EnergyBased(
        lambda x: x, event_shape=(), support=constraints.positive
    )._is_truncated
    assert half_normal(host).expand((3,))._is_truncated
