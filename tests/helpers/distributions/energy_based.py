import copy
import math
from typing import NamedTuple

import numpy as np
import pytest

from helpers.oracles import LOG_NORMALIZER_QUARTIC, VARIANCE_QUARTIC

rng = np.random.default_rng(0)


def quartic(x):
    return (x**4).reshape(len(x), -1).sum(-1) / 4


DISTRIBUTIONS = {
    "scalar": lambda h: h.ebm.EnergyBased(quartic, h.dist.Normal(0.0, 1.0)),
    "vector": lambda h: h.ebm.EnergyBased(h.Bowl(), h.normal((3,))),
    "image": lambda h: h.ebm.EnergyBased(h.Bowl(), h.normal((1, 4, 4))),
    "no base": lambda h: h.ebm.EnergyBased(h.Bowl(), event_shape=(3,)),
    "batched base": lambda h: h.ebm.EnergyBased(
        h.Bowl(), h.dist.Normal(h.array(np.zeros((5, 3))), 2.0).to_event(1)
    ),
    "positive": lambda h: h.ebm.EnergyBased(lambda x: x, h.dist.Gamma(2.0, 1.0)),
    "simplex": lambda h: h.ebm.EnergyBased(
        lambda x: x[:, 0], h.dist.Dirichlet(h.array([1.0, 1.0, 1.0]))
    ),
    "expanded": lambda h: h.ebm.EnergyBased(h.Bowl(), h.normal((3,))).expand((4,)),
}


@pytest.fixture(params=DISTRIBUTIONS)
def distribution(request, host):
    return DISTRIBUTIONS[request.param](host)


def test_shapes(host, distribution):
    shape = distribution.batch_shape + distribution.event_shape
    value = host.array(host.sample(distribution, (6,)))
    assert value.shape == (6, *shape)
    assert distribution.support.check(value).all()
    log_prob = host.to_numpy(distribution.log_prob(value))
    assert log_prob.shape == (6, *distribution.batch_shape)
    np.testing.assert_allclose(log_prob, -host.to_numpy(distribution.potential(value)), rtol=1e-6)
    assert repr(distribution).startswith("EnergyBased(")
    twin = host.to_numpy(copy.deepcopy(distribution).log_prob(value))
    np.testing.assert_allclose(twin, log_prob, rtol=1e-6)


def test_expand_mask_to_event(host, distribution):
    expanded = distribution.expand((7, *distribution.batch_shape))
    value = host.array(host.initial_values(expanded, ()))
    assert value.shape == expanded.batch_shape + expanded.event_shape
    expected = host.to_numpy(distribution.log_prob(value))
    np.testing.assert_allclose(host.to_numpy(expanded.log_prob(value)), expected, rtol=1e-6)
    mask = np.arange(7).reshape(7, *(1,) * len(distribution.batch_shape)) < 3
    masked = expanded.mask(host.xp.asarray(mask)).log_prob(value)
    np.testing.assert_allclose(host.to_numpy(masked), np.where(mask, expected, 0.0), rtol=1e-6)
    event = host.to_numpy(expanded.to_event(1).log_prob(value))
    np.testing.assert_allclose(event, expected.sum(-1), rtol=1e-5)
    one_value = host.array(host.initial_values(distribution, ()))
    assert expanded.log_prob(one_value).shape == expanded.batch_shape


def test_log_prob_is_base_minus_energy(host):
    means, x = [-1.0, 0.0, 2.0], np.array([0.5, 1.0, -1.0])
    base = host.dist.Normal(host.array(means), 1.0)
    found = host.ebm.EnergyBased(quartic, base, inverse_temperature=2.0).log_prob(host.array(x))
    expected = -(x**4) / 2 - (x - means) ** 2 / 2 - math.log(2 * math.pi) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    flat = host.ebm.EnergyBased(quartic, event_shape=()).log_prob(host.array(x))
    np.testing.assert_allclose(flat, -(x**4) / 4, rtol=1e-6)


def test_integers_and_booleans_are_numbers(host):
    """Values and energies; the net multiplies matrices, which need one type."""
    weights, levels = host.array([[1.0], [2.0]]), host.dist.Normal(0.0, 1.0)
    prior = host.ebm.EnergyBased(lambda x: (x @ weights)[:, 0], host.normal((2,)))
    steps = host.ebm.EnergyBased(lambda x: x > 0, levels)
    counts = host.ebm.EnergyBased(lambda x: 2 * (x > 0), levels)
    for x in (np.array([[0, 1], [2, -3]]), np.array([[True, False]])):
        whole, real = host.xp.asarray(x), host.array(x)
        assert host.to_numpy(prior.log_prob(whole)).tolist() == prior.log_prob(real).tolist()
        expected = levels.log_prob(real) - host.array(x > 0)
        np.testing.assert_allclose(steps.log_prob(whole), expected)
        np.testing.assert_allclose(counts.log_prob(whole), expected - host.array(x > 0))


def test_settings_of_derived_distributions(host):
    base = host.ebm.Pushforward(host.normal((1,)), host.xp.sin)
    options = {"sampler": host.ebm.MALA(0.1), "num_sampler_steps": 7, "inverse_temperature": 2.0}
    expanded = host.ebm.EnergyBased(host.Bowl(), base, **options).expand((4,))
    plain = host.without_plates(expanded)
    for derived in (expanded, expanded.latent, plain, copy.copy(plain)):
        assert {name: getattr(derived, name) for name in options} == options
    assert expanded.latent.batch_shape == (4,)
    assert plain.batch_shape == ()


def test_gradients_of_log_prob_and_potential(host):
    def evaluate(method, weight, scale, x):
        base = host.dist.Normal(host.array(np.zeros(3)), scale).to_event(1)
        distribution = host.ebm.EnergyBased(lambda x: weight * (x**2).sum(-1), base)
        return getattr(distribution, method)(x).sum()

    weight, scale, x = 0.5, 2.0, rng.normal(size=(5, 3))
    arguments = weight, scale, x
    full = host.gradients(lambda *args: evaluate("potential", *args), *arguments)
    assert full[0] == pytest.approx((x**2).sum(), rel=1e-5)
    assert full[1] == pytest.approx(15 / scale - (x**2).sum() / scale**3, rel=1e-5)
    np.testing.assert_allclose(full[2], (2 * weight + scale**-2) * x, rtol=1e-5)
    with host.untrained():
        frozen = host.gradients(lambda *args: evaluate("log_prob", *args), *arguments)
    assert frozen[0] == frozen[1] == 0
    np.testing.assert_allclose(frozen[2], -full[2], rtol=1e-5)


def test_known_log_normalizer(host):
    def log_prob(a, x):
        return host.ebm.EnergyBased(
            lambda x: 0.5 * a * x**2,
            host.dist.Normal(0.0, 1.0),
            log_normalizer=lambda: -0.5 * host.xp.log1p(a),
        ).log_prob(x)

    x, exact = host.array(rng.normal(size=5)), host.dist.Normal(0.0, 0.5)
    np.testing.assert_allclose(log_prob(host.array(3.0), x), exact.log_prob(x), rtol=1e-5)
    (gradient,) = host.gradients(lambda a: log_prob(a, x).sum(), 3.0)
    assert gradient == pytest.approx((0.125 - x**2 / 2).sum().item(), rel=1e-5)


def test_quartic_log_normalizer(host):
    prior, x = DISTRIBUTIONS["scalar"](host), np.linspace(-12, 12, 20_001)
    log_prob = host.to_numpy(prior.log_prob(host.array(x))).astype(float)
    log_z = math.log(np.exp(log_prob).sum() * (x[1] - x[0]))
    assert log_z == pytest.approx(LOG_NORMALIZER_QUARTIC, abs=1e-5)
    weights = np.exp(host.to_numpy(host.importance_log_weights(prior, 20_000)))
    error = 4 * weights.std().item() / math.sqrt(20_000)
    assert weights.mean() == pytest.approx(math.exp(LOG_NORMALIZER_QUARTIC), abs=error)


# --- draws ---


def test_default_sampler(host):
    # Precision 1 + 3 of a Gaussian.
    draws = host.sample(host.ebm.EnergyBased(host.Bowl(1.5), host.normal()), (20_000,))
    assert draws.var() == pytest.approx(1 / 4, rel=0.03)


def test_exact_sampler(host):
    base, sampler = host.dist.Normal(0.0, 1.0), host.ebm.MALA(0.1)
    draws = host.sample(host.ebm.EnergyBased(quartic, base, sampler=sampler), (20_000,))
    assert draws.var() == pytest.approx(VARIANCE_QUARTIC, rel=0.04)


def test_number_of_steps(host):
    options = {"sampler": host.ebm.Langevin(1e-6), "num_sampler_steps": 1}
    far = host.ebm.EnergyBased(host.Bowl(), host.dist.Normal(100.0, 0.1), **options)
    assert host.sample(far) == pytest.approx(100.0, abs=1.0)


def test_constrained_draws(host):
    # exp(-x) * Gamma(2, 1) is Gamma(2, 2) up to its normalizer.
    options = {"sampler": host.ebm.MALA(0.3), "num_sampler_steps": 200}
    prior = host.ebm.EnergyBased(lambda x: x, host.dist.Gamma(2.0, 1.0), **options)
    draws = host.sample(prior, (20_000,))
    assert draws.mean() == pytest.approx(1.0, rel=0.03)
    assert draws.var() == pytest.approx(0.5, rel=0.06)
    flat = {"event_shape": (), "support": host.constraints.positive}
    draws = host.sample(host.ebm.EnergyBased(lambda x: 3 * x, **flat), (4000,))
    assert draws.mean() == pytest.approx(1 / 3, abs=0.03)


# --- errors ---


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"energy": 3.0, "event_shape": (2,)}, TypeError, "`energy` to be callable, got float"),
        ({"base": 3.0}, TypeError, "`base` to be a distribution, got float"),
        ({"event_shape": (2,), "num_sampler_steps": 0}, ValueError, "`num_sampler_steps` to be"),
    ],
)
def test_bad_arguments(host, arguments, error, message):
    with pytest.raises(error, match=message):
        host.ebm.EnergyBased(**{"energy": quartic} | arguments)
    with pytest.raises(TypeError, match="got the class MALA"):
        host.ebm.EnergyBased(quartic, event_shape=(2,), sampler=host.ebm.MALA)


def twice(x):
    return 2 * x


def pair(theta, x):
    return 0.5 * (x - theta) ** 2


BASES = {
    "energy": lambda host, it: it,
    "part": lambda host, it: host.ebm.Joint(theta=host.dist.Normal(0.0, 1.0), x=it),
    "transform": lambda host, it: host.dist.TransformedDistribution(
        it, [host.dist.transforms.AffineTransform(0.0, 2.0)]
    ),
    "plate": lambda host, it: it.expand((2,)).to_event(1),
    "mask": lambda host, it: it.mask(host.array([1.0]) > 0),
    "generator": lambda host, it: host.ebm.Pushforward(it, twice),
    "conditional": lambda host, it: host.ebm.EnergyBased(
        pair, host.ebm.Joint(theta=host.dist.Normal(0.0, 1.0), x=it.base)
    ).conditional(theta=host.array(1.0)),
    "mixture": lambda host, it: host.dist.MixtureSameFamily(
        host.dist.Categorical(host.array([0.5, 0.5])), it.expand((2,))
    ),
}


@pytest.mark.parametrize("where", BASES)
def test_a_base_without_its_log_normalizer_is_refused(host, where):
    """Its log Z would be missing from every log-density."""
    inner = host.ebm.EnergyBased(lambda x: 0.5 * x**2, host.dist.Normal(0.0, 1.0))
    energy = (lambda theta, x: x**2) if where == "part" else lambda x: x**2
    with pytest.raises(ValueError, match="whose log Z is unknown"):
        host.ebm.EnergyBased(energy, BASES[where](host, inner))
    if where != "conditional":
        known = BASES[where](host, inner.normalized(-0.5 * math.log(2)))
        assert host.ebm.EnergyBased(energy, known).base is not None


def test_a_base_with_its_log_normalizer(host):
    inner = host.ebm.EnergyBased(lambda x: 0.5 * x**2, host.dist.Normal(0.0, 1.0))
    known = inner.normalized(-0.5 * math.log(2))
    x = host.array(1.0)
    outer = host.ebm.EnergyBased(lambda x: x**2, known)
    expected = float(known.log_prob(x)) - 1
    assert float(outer.log_prob(x)) == pytest.approx(expected, rel=1e-5)


def mixture_of_two(host):
    weights, components = host.array([0.5, 0.5]), host.dist.Normal(host.array([-2.0, 1.0]), 0.5)
    return host.dist.MixtureSameFamily(host.dist.Categorical(weights), components)


OTHER_BASES = {
    "angle": (lambda host: host.dist.VonMises(0.0, 1.0), math.pi),
    "angle in a mask": (lambda host: host.dist.VonMises(0.0, 1.0).mask(True), math.pi),
    "mixture": (mixture_of_two, 6.0),
}


@pytest.mark.parametrize("name", OTHER_BASES)
def test_values_are_where_draws_of_the_base_are(host, name):
    """An angle stays in one period; the support of a mixture is that of its components."""
    make, end = OTHER_BASES[name]
    base, grid = make(host), np.linspace(-end, end, 4001)
    weights = np.exp(np.asarray(base.log_prob(host.array(grid))) - 0.5 * grid)
    mean = np.average(grid, weights=weights)
    deviation = np.average((grid - mean) ** 2, weights=weights) ** 0.5
    draws = np.asarray(host.sample(host.ebm.EnergyBased(lambda x: 0.5 * x, base), (1000,)))
    assert abs(draws).max() < end
    assert abs(draws.mean() - mean) < 4 * deviation / 1000**0.5


def test_a_mixture_of_bits(host):
    weights = host.array([[[0.2, 0.8], [0.5, 0.5]], [[0.6, 0.4], [0.9, 0.1]]])
    base = host.dist.MixtureSameFamily(
        host.dist.Categorical(host.array([[0.3, 0.7], [0.5, 0.5]])),
        host.dist.Bernoulli(weights).to_event(1),
    )
    model = host.ebm.EnergyBased(lambda x: 1.5 * x[:, 0] * x[:, 1], base)
    states = host.array([[[0, 0]], [[0, 1]], [[1, 0]], [[1, 1]]])
    law = np.exp(np.asarray(base.log_prob(states))) * np.exp([[0], [0], [0], [-1.5]])
    log_z = np.asarray(host.log_normalizer(model, method="enumeration").estimate)
    np.testing.assert_allclose(log_z, np.log(law.sum(0)), atol=1e-5)
    draws = host.sample(model, (2000,))
    found = [(draws == state).all(-1).mean(0) for state in host.to_numpy(states)]
    np.testing.assert_allclose(found, law / law.sum(0), atol=0.05)


def test_nan(host):
    def energy(x):
        return x.sum(-1) * math.nan

    zeros, steep = (
        host.array(np.zeros(3)),
        host.ebm.EnergyBased(
            lambda x: 1e3 * x**4,
            host.dist.Normal(0.0, 1.0),
            sampler=host.ebm.Langevin(0.05),
            validate_args=True,
        ),
    )
    with pytest.raises(ValueError, match="give numbers, got NaN"):
        host.ebm.EnergyBased(energy, host.normal((3,)), validate_args=True).log_prob(zeros)
    quiet = host.ebm.EnergyBased(energy, host.normal((3,)), validate_args=False)
    assert math.isnan(quiet.log_prob(zeros))
    with pytest.raises(ValueError, match="finite draws, got NaN or infinity"):
        host.sample(steep, (10,))


def test_positions_of_other_dimensions_than_values(host):
    support = host.constraints.corr_cholesky
    flat = host.ebm.EnergyBased(lambda x: 0 * x.sum((-1, -2)), event_shape=(3, 3), support=support)
    for shape in ((), (2,)):
        draws = host.sample(flat.expand(shape), (5,))
        assert draws.shape == (5, *shape, 3, 3)
        np.testing.assert_allclose((draws**2).sum(-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("sampler", ["SMC", "GibbsWithGradients", "Grid"])
def test_an_empty_batch(host, sampler):
    zeros = host.array(np.zeros(0))
    base = host.dist.Normal(zeros, 1.0) if sampler == "Grid" else host.dist.Bernoulli(zeros)
    model = host.ebm.EnergyBased(lambda x: 1.0 * x**2, base, sampler=getattr(host.ebm, sampler)())
    assert host.sample(model, (2,)).shape == (2, 0)


def test_support(host):
    assert host.ebm.EnergyBased(quartic, event_shape=()).support is host.constraints.real
    vector = host.ebm.EnergyBased(quartic, event_shape=(2,)).support
    assert vector.event_dim == 1
    own = host.ebm.EnergyBased(quartic, host.normal((3,)), support=host.constraints.simplex)
    assert own.expand((4,)).support is host.constraints.simplex


def test_a_base_that_lacks_an_event_is_suspected(host):
    words, x = r"no event: did you mean base\.to_event\(1\)\?", host.array(np.ones((4, 3)))
    base = host.dist.Normal(host.array(np.zeros(3)), 1.0)
    with pytest.raises(ValueError, match=words):
        host.ebm.EnergyBased(lambda x: x.sum(-1), base).log_prob(x)
    for energy in (lambda x: x.sum(-1), lambda x: x @ host.array(np.ones(3))):
        with pytest.raises(ValueError, match=words):
            host.run_chains(host.ebm.MALA(), host.ebm.EnergyBased(energy, base))
        assert host.ebm.EnergyBased(energy, base.to_event(1)).log_prob(x).shape == (4,)
    given = host.ebm.EnergyBased(lambda x, c: c, host.normal(()), context=x)
    with pytest.raises(ValueError, match=r"got shape \(4, 3\)\.(\n|$)"):
        given.log_prob(host.array(np.ones(4)))


class Estimate(NamedTuple):
    estimate: float
    standard_error: float = 0.1


def test_a_distribution_with_its_log_normalizer(host):
    """A log-density of held-out values, whose parameters are constants."""
    prior = host.ebm.EnergyBased(quartic, host.dist.Normal(0.0, 1.0))
    grid = np.linspace(-6.0, 6.0, 2001)
    for given in (LOG_NORMALIZER_QUARTIC, Estimate(LOG_NORMALIZER_QUARTIC)):
        density = np.exp(host.to_numpy(prior.normalized(given).log_prob(host.array(grid))))
        assert density.sum() * (grid[1] - grid[0]) == pytest.approx(1.0, abs=1e-4)
    assert prior.log_normalizer is None

    def log_prob(a, x):
        energy = host.ebm.EnergyBased(lambda x: a * x**2 / 2, host.dist.Normal(0.0, 1.0))
        return energy.normalized(-0.5 * math.log(2.0)).log_prob(x).sum()

    parameter, value = host.gradients(log_prob, 1.0, np.ones(3))
    assert parameter == 0.0
    np.testing.assert_allclose(value, -2.0)


def test_log_normalizers_of_rows(host):
    base = host.dist.Normal(host.array([0.0, 1.0, 2.0]), 1.0)
    prior = host.ebm.EnergyBased(lambda x: 0 * x, base).expand((2, 3))
    log_z = host.array([1.0, 2.0, 3.0])
    value = host.array(np.zeros((2, 3)))
    found = prior.log_prob(value) - prior.normalized(log_z).log_prob(value)
    np.testing.assert_allclose(host.to_numpy(found), [[1.0, 2.0, 3.0]] * 2, rtol=1e-6)
    for wrong, message in [
        (host.array([1.0, 2.0]), r"batch shape of base and context, \(3,\), got \(2,\)"),
        (host.array(np.nan), "`log_normalizer` to be finite, got NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            prior.normalized(wrong)
