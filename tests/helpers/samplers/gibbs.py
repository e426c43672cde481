"""Gibbs sampling and discrete draws against enumeration, each beside a cooled law that fails."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import chisquare

rng = np.random.default_rng(0)
SIZES = (3, 2, 4)
STATES = np.array(list(itertools.product(*map(range, SIZES))))
ENERGIES = rng.normal(size=len(STATES)) * 1.5
TABLE = ENERGIES.reshape(SIZES)


def codes(host, inverse_temperature=1.0, kinds=("nominal", "ordinal", "cyclic"), sizes=SIZES):
    """Any law on 3 x 2 x 4 states, on a uniform base."""
    columns = [host.ebm.Column(*pair) for pair in zip(kinds, sizes, strict=True)]
    log_probs = np.full((3, 4), -np.inf)
    for c, size in enumerate(sizes):
        log_probs[c, :size] = -math.log(size)
    base = host.ebm.ColumnMarginals(columns, np.zeros(3), np.ones(3), log_probs)
    table, strides = host.array(ENERGIES), host.array([8, 4, 1])
    return host.ebm.EnergyBased(
        lambda x: table[host.whole((x * strides).sum(-1))],
        base,
        inverse_temperature=inverse_temperature,
    )


KINDS = ("nominal", "nominal", "cyclic")


def frequencies(values):
    index = np.asarray(values).reshape(-1, 3) @ np.array([8, 4, 1])
    return np.bincount(index.astype(int), minlength=len(STATES))


def p_value(counts, law):
    return chisquare(counts, law / law.sum() * counts.sum()).pvalue


def smooth(host, inverse_temperature=1.0):
    """A law on 3 x 2 x 4 states with derivatives in its codes, and the law."""

    def energy(x):
        a, b, c = x[:, 0], x[:, 1], x[:, 2]
        return 0.7 * (a - 1.2 * b) ** 2 - 0.5 * b * c + 0.3 * (c - a) ** 2

    law = np.exp(-energy(STATES.astype(float)))
    uniform = codes(host, kinds=("ordinal", "nominal", "cyclic")).base
    return host.ebm.EnergyBased(energy, uniform, inverse_temperature=inverse_temperature), law


@pytest.mark.parametrize("cooling", [1.0, 1.1])
@pytest.mark.parametrize("kernel", ["Gibbs", "GibbsWithGradients"])
def test_exact_draws_stay_exact(host, kernel, cooling):
    if kernel == "Gibbs":
        model, law, num_steps = codes(host, cooling, KINDS), np.exp(-ENERGIES), 3
    else:
        (model, law), num_steps = smooth(host, cooling), 20
    start = STATES[rng.choice(len(STATES), 20_000, p=law / law.sum())]
    kernel = getattr(host.ebm, kernel)()
    moved = host.move_values(kernel, model, host.array(start), num_steps).samples
    assert (p_value(frequencies(moved), law) > 1e-3) == (cooling == 1.0)
    if cooling != 1.0:
        assert p_value(frequencies(moved), law) < 1e-4


def test_chains_and_populations_find_the_law(host):
    law, model = np.exp(-ENERGIES), codes(host, kinds=KINDS)
    chains = host.run_chains(
        host.ebm.Gibbs(), model, num_samples=20, num_chains=1000, thinning=3, num_warmup=10
    )
    assert chains.samples.shape == (1000, 20, 3)
    assert p_value(frequencies(chains.samples[:, -1]), law) > 1e-3
    draws = host.run_smc(host.ebm.SMC(), model, num_samples=5000)
    share = frequencies(draws.samples) / 5000
    error = np.sqrt(law / law.sum() / float(draws.effective_ancestors))
    assert np.all(abs(share - law / law.sum()) < 5 * error)
    log_z = math.log(law.mean())
    assert float(draws.log_normalizer) == pytest.approx(log_z, abs=5 * float(draws.standard_error))


@pytest.mark.parametrize(
    ("kernel", "num_warmup"),
    [pytest.param("Gibbs", 50, marks=pytest.mark.once), ("GibbsWithGradients", 300)],
)
def test_chains_of_bits(host, kernel, num_warmup):
    # 2^10 states with two modes, all codes 0 and all codes 1, which exchange crosses between.
    states = np.array(list(itertools.product([0.0, 1.0], repeat=10)))
    slope = np.linspace(0, 0.3, 10)
    total = states.sum(-1)
    law = np.exp(0.3 * (total - 5) ** 2 + states @ slope)

    def energy(x):
        return -0.3 * (x.sum(-1) - 5) ** 2 - (x * host.array(slope)).sum(-1)

    base = host.dist.Bernoulli(host.array(np.full(10, 0.5))).to_event(1)
    sampler = host.ebm.ReplicaExchange(getattr(host.ebm, kernel)(), temperatures=(8, 4, 2, 1))
    options = {"num_samples": 5, "num_warmup": num_warmup, "num_chains": 1000, "check": False}
    chains = host.run_chains(sampler, host.ebm.EnergyBased(energy, base), **options)
    draws = np.asarray(chains.samples)[:, -1]
    expected = np.bincount(total.astype(int), law) / law.sum()
    counts = np.bincount(draws.sum(-1).astype(int), minlength=11)
    assert p_value(counts, expected) > 1e-3
    error = 4 * np.sqrt(0.25 / 1000)
    np.testing.assert_allclose(draws.mean(0), law @ states / law.sum(), atol=error)
    assert chains.statistics["swap_rate"].shape == (1000, 5, 3)


def test_categories_of_the_host(host):
    # Whole numbers as values, real ones in derivatives.
    base = host.dist.Categorical(host.array(np.full((3, 5), 0.2))).to_event(1)
    model = host.ebm.EnergyBased(lambda x: (0.5 * (x - 1.7) ** 2).sum(-1), base)
    options = {"num_warmup": 60, "num_samples": 2, "num_chains": 2000, "check": False}
    chains = host.run_chains(host.ebm.GibbsWithGradients(), model, **options)
    draws = np.asarray(chains.samples)
    assert draws.dtype.kind == "i"
    law = np.exp(-0.5 * (np.arange(5) - 1.7) ** 2)
    for column in range(3):
        assert p_value(np.bincount(draws[:, -1, column], minlength=5), law) > 1e-3


def test_one_gradient_and_one_column_a_step(host):
    kernel = host.ebm.GibbsWithGradients(columns=(host.ebm.Column.nominal(2),) * 6)
    start = host.array(np.zeros((50, 6)))
    shapes = []

    def potential(x):
        shapes.append(tuple(x.shape))
        return -9 * x[:, 0]

    state, info = host.step(kernel, potential, kernel.init(potential, start))
    assert shapes == [(50, 6)] * 2
    moved = np.asarray(state.position)
    assert moved.sum(-1).max() == 1
    assert moved.mean(0)[0] > 0.8  # e^4.5 against 5 others.
    assert info.acceptance_rate.shape == (50,)


def test_bits_and_a_base(host):
    # The host's own bits; half of the log-odds are the base's.
    base = host.dist.Bernoulli(host.array([0.3, 0.8, 0.5, 0.5])).to_event(1)
    weights = host.array([1.0, -1.0, 0.0, 2.0])
    model = host.ebm.EnergyBased(lambda x: -(x * weights).sum(-1), base)
    draws = host.sample(model, (2, 3000))
    assert draws.shape == (2, 3000, 4)
    odds = np.array([0.3 / 0.7, 4.0, 1.0, 1.0]) * np.exp([1.0, -1.0, 0.0, 2.0])
    np.testing.assert_allclose(draws.mean((0, 1)), odds / (1 + odds), atol=0.04)


def test_a_law_for_each_context(host):
    base = host.dist.Bernoulli(host.array([0.5, 0.5])).to_event(1)
    context = host.array([[-2.0], [0.0], [2.0]])
    model = host.ebm.EnergyBased(lambda x, c: -c[:, 0] * x.sum(-1), base, context=context)
    draws = host.sample(model, (1500,))
    expected = 1 / (1 + np.exp([2.0, 0.0, -2.0]))
    np.testing.assert_allclose(draws.mean((0, 2)), expected, atol=0.06)


def mixed(host, inverse_temperature=1.0):
    """c ~ (.5, .3, .2), x | c ~ N(mu_c, .25): the base's law is divided out."""
    columns = [host.ebm.Column.numeric(), host.ebm.Column.ordinal(3)]
    log_probs = np.log([[1 / 3] * 3] * 2)
    base = host.ebm.ColumnMarginals(columns, [0.5, 0.0], [2.0, 1.0], log_probs)
    centers, weights = host.array([-1.0, 0.0, 2.0]), host.array(np.log([0.5, 0.3, 0.2]))

    def energy(x):
        code = host.whole(x[:, 1])
        number = x[:, 0]
        return 2 * (number - centers[code]) ** 2 - weights[code] - (number - 0.5) ** 2 / 8

    return host.ebm.EnergyBased(energy, base, inverse_temperature=inverse_temperature)


def test_numbers_and_codes(host):
    model = mixed(host)
    draws = host.run_smc(host.ebm.SMC(), model, num_samples=4000)
    code, number = np.asarray(draws.samples[:, 1]), np.asarray(draws.samples[:, 0])
    error = 4 * math.sqrt(0.25 / float(draws.effective_ancestors))
    np.testing.assert_allclose(np.bincount(code.astype(int)) / 4000, [0.5, 0.3, 0.2], atol=error)
    for value, center in enumerate((-1.0, 0.0, 2.0)):
        own = number[code == value]
        assert own.mean() == pytest.approx(center, abs=0.08)
        assert own.std() == pytest.approx(0.5, rel=0.08)
    # Z = integral of the joint law over the base's constants: sqrt(2 pi .25) / (sqrt(2 pi) 2 3).
    log_z = math.log(0.5 / 6)
    assert 0.35 < float(draws.acceptance_rate) < 0.85  # Tuned to .57.
    assert float(draws.log_normalizer) == pytest.approx(log_z, abs=5 * float(draws.standard_error))


def test_chains_of_numbers_and_codes_forget_their_start(host):
    start = host.array(np.tile([0.0, 1.0], (3000, 1)))
    moved = np.asarray(host.move_values(host.ebm.Gibbs(), mixed(host), start, 100).samples)
    counts = np.bincount(moved[:, 1].astype(int), minlength=3)
    assert p_value(counts, np.array([0.5, 0.3, 0.2])) > 1e-3
    assert moved[:, 0].std() == pytest.approx(math.sqrt(0.25 + 1.29), rel=0.06)


@pytest.mark.parametrize("kernel", ["Gibbs", "GibbsWithGradients"])
def test_numbers_move_at_scales_of_their_own(host, kernel):
    """Standard deviations of 1 and 300, one energy: each chain alone sees both."""
    columns = [host.ebm.Column.numeric(), host.ebm.Column.numeric(), host.ebm.Column.nominal(2)]
    base = host.ebm.ColumnMarginals(columns, [0.0] * 3, [1.0, 300.0, 1.0], np.zeros((3, 2)))
    flat = host.ebm.EnergyBased(lambda x: 0.1 * x[:, 2], base)
    options = {"num_samples": 400, "num_warmup": 300, "num_chains": 8}
    samples = host.run_chains(getattr(host.ebm, kernel)(), flat, **options).samples
    spread = host.to_numpy(samples)[..., :2].std(1) / np.array([1.0, 300.0])
    assert spread.min() > 0.5


@pytest.mark.parametrize("kernel", ["Gibbs", "GibbsWithGradients"])
def test_tables_of_two_rows(host, kernel):
    row = mixed(host).base
    model = host.ebm.EnergyBased(
        lambda x: -(x[..., 0] + x[..., 1]).sum(-1), row.expand((2,)).to_event(1)
    )
    start = host.array(np.zeros((2000, 2, 2)))
    moved = host.to_numpy(host.move_values(getattr(host.ebm, kernel)(), model, start, 60).samples)
    law = np.exp(np.arange(3))
    for code in moved[..., 1].T:
        assert p_value(np.bincount(code.astype(int), minlength=3), law) > 1e-3
    np.testing.assert_allclose(moved[..., 0].mean(0), [4.5, 4.5], atol=0.25)


@pytest.mark.parametrize("cooling", [1.0, 1.2])
@pytest.mark.parametrize(("kernel", "num_steps"), [("Gibbs", 6), ("GibbsWithGradients", 12)])
def test_exact_mixed_draws_stay_exact(host, kernel, num_steps, cooling):
    code = rng.choice(3, 20_000, p=[0.5, 0.3, 0.2])
    number = np.array([-1.0, 0.0, 2.0])[code] + 0.5 * rng.normal(size=20_000)
    start = host.array(np.stack([number, code], -1))
    kernel = getattr(host.ebm, kernel)()
    moved = host.move_values(kernel, mixed(host, cooling), start, num_steps).samples
    moved = np.asarray(moved)
    counts = np.bincount(moved[:, 1].astype(int), minlength=3)
    left = moved[:, 0] - np.array([-1.0, 0.0, 2.0])[moved[:, 1].astype(int)]
    spread = abs(left.std() / 0.5 - 1) * math.sqrt(2 * 20_000)
    exact = p_value(counts, np.array([0.5, 0.3, 0.2])) > 1e-3 and spread < 4
    assert exact == (cooling == 1.0)


@pytest.mark.parametrize(
    ("sampler", "distribution", "message"),
    [
        ("MALA", codes, "a sampler of discrete columns, such as Gibbs"),
        ("Gibbs", lambda host: host.dist.Normal(0.0, 1.0), "discrete columns for Gibbs"),
    ],
)
def test_kernels_that_do_not_fit(host, sampler, distribution, message):
    with pytest.raises(ValueError, match=message):
        host.run_chains(getattr(host.ebm, sampler)(), distribution(host), num_samples=5)


def test_numeric_kernel_without_acceptance(host):
    with pytest.raises(ValueError, match="accepts or rejects"):
        host.ebm.Gibbs(host.ebm.Langevin(0.1))
