"""Products of column marginals: their fit, densities, draws, and what they refuse."""

import re

import numpy as np
import pytest
from scipy.special import softmax

rng = np.random.default_rng(0)


def columns(host):
    return [host.ebm.Column.numeric(), host.ebm.Column.nominal(2), host.ebm.Column.ordinal(4)]


def data(number=4000):
    codes = [rng.choice(2, number, p=[0.3, 0.7]), rng.choice(4, number, p=[0.4, 0.3, 0.2, 0.1])]
    return np.stack([3.0 + 2.0 * rng.normal(size=number), *codes], -1)


def test_fit_density_and_draws(host):
    base = host.ebm.ColumnMarginals.fit(columns(host), host.array(data()))
    assert (tuple(base.event_shape), tuple(base.batch_shape)) == ((3,), ())
    value = host.array([[3.0, 1.0, 0.0], [5.0, 0.0, 3.0]])
    normal = -0.5 * np.log(2 * np.pi * 4.0)
    expected = [normal + np.log(0.7 * 0.4), normal - 0.5 + np.log(0.3 * 0.1)]
    np.testing.assert_allclose(host.to_numpy(base.log_prob(value)), expected, atol=0.15)
    draws = host.sample(base.expand((2,)), (3000,))
    assert draws.shape == (3000, 2, 3)
    np.testing.assert_allclose(draws.mean((0, 1)), [3.0, 0.7, 1.0], atol=0.15)
    assert bool(np.all(host.to_numpy(base.support.check(host.array(draws)))))
    assert not np.any(host.to_numpy(base.support.check(value + 0.5)))


def test_smoothing_leaves_no_code_out(host):
    values = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    base = host.ebm.ColumnMarginals.fit(columns(host), values, smoothing=0.5)
    codes = np.exp(host.to_numpy(base.log_probs))
    np.testing.assert_allclose(codes[2], [2.5 / 4, 0.5 / 4, 0.5 / 4, 0.5 / 4], rtol=1e-6)
    np.testing.assert_allclose(codes[1], [0.5, 0.5, 0, 0], rtol=1e-6)


def test_log_probabilities_are_normalized(host):
    logits = np.array([[-np.inf] * 4, [0.0, 1.0, 7.0, np.nan], [0.0, 1.0, 2.0, 3.0]])
    value = host.array([3.0, 1.0, 2.0])

    def log_prob(logits):
        return host.ebm.ColumnMarginals(columns(host), [3.0] * 3, [1.0] * 3, logits).log_prob(value)

    (gradient,) = host.gradients(log_prob, logits)
    bits, codes = softmax(logits[1, :2]), softmax(logits[2])
    expected = np.log(bits[1] * codes[2] / np.sqrt(2 * np.pi))
    assert float(log_prob(logits)) == pytest.approx(expected, rel=1e-5)
    rows = [np.zeros(4), [-bits[0], 1 - bits[1], 0, 0], np.eye(4)[2] - codes]
    np.testing.assert_allclose(host.to_numpy(gradient), rows, atol=1e-6)


def test_missing_codes_given_a_third(host):
    """Densities and draws of two columns, in another order, against a sum over the table."""
    frequencies = np.array([[0.3, 0.7, 0, 0], [0.2, 0.3, 0.5, 0], [0.1, 0.2, 0.3, 0.4]])
    columns = [host.ebm.Column.nominal(size, f"x{size}") for size in (2, 3, 4)]
    base = host.ebm.ColumnMarginals(columns, np.zeros(3), np.ones(3), np.log(frequencies + 1e-300))
    energies = np.random.default_rng(1).normal(size=(4, 2, 3))
    weights, others = host.array(energies), base.marginal([-1, "x2"])

    def energy(x, given):
        return weights[host.whole(x[:, 0]), host.whole(x[:, 1]), host.whole(given[:, 0])]

    missing = host.ebm.EnergyBased(energy, others, context=host.array([[0.0], [2.0]]))
    expected = np.exp(-energies[..., [0, 2]]) * np.outer(*frequencies[[2, 0]])[:, :2, None]
    expected = (expected / expected.sum((0, 1))).reshape(8, 2)
    values = np.indices((4, 2)).reshape(2, 8, 1).transpose(1, 2, 0)
    density = np.exp(-host.to_numpy(missing.potential(host.array(values))))
    np.testing.assert_allclose(density / density.sum(0), expected, rtol=1e-4)
    draws = host.sample(missing, (2000,))
    found = (draws[:, None] == values).all(-1).mean(0)
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_numbers_alone_are_normal(host):
    base = host.ebm.ColumnMarginals.fit(columns(host), host.array(data(50)))
    number = base.marginal([0])
    expected = host.dist.Normal(base.loc[0], base.scale[0]).log_prob(host.array(2.5))
    assert float(number.log_prob(host.array([2.5]))) == pytest.approx(float(expected))
    with pytest.raises(
        ValueError, match=r"Expected different columns, at least one, got \[0, -3\]"
    ):
        base.marginal([0, -3])


WRONG = {
    "a code out of range": (np.array([[0.0, 2, 0], [1, 0, 0]]), "got row 0: 2 in column 1"),
    "a fraction": (np.array([[0.0, 1, 0], [1, 0, 0.5]]), "got row 1: 0.5 in column 2"),
    "not finite": (np.array([[0.0, 1, 0], [np.nan, 0, 0]]), "got row 1: nan in column 0"),
    "a column too few": (np.zeros((2, 2)), r"`data` of shape \(N, 3\), got \(2, 2\)"),
    "a vector": (np.zeros(3), r"`data` of shape \(N, 3\), got \(3,\)"),
    "a constant column": (np.zeros((2, 3)), "column 0 to vary, got 0.0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_data(host, name):
    values, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        host.ebm.ColumnMarginals.fit(columns(host), values)


def test_columns_in_words(host):
    named = [host.ebm.Column.numeric("age"), *columns(host)[1:], *columns(host)[1:] * 5]
    base = host.ebm.ColumnMarginals(named, np.zeros(13), np.ones(13), np.zeros((13, 4)))
    words = r"\(age: numeric, 1: nominal\(2\), .*, 7: nominal\(2\), \.\.\.\)"
    assert re.fullmatch("ColumnMarginals" + words, repr(base))
    assert re.fullmatch("ColumnConstraint" + words, repr(base.support))


def test_wrong_parameters(host):
    with pytest.raises(ValueError, match=r"`log_probs` of shape \(3, 4\), got \(3, 2\)"):
        host.ebm.ColumnMarginals(columns(host), np.zeros(3), np.ones(3), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="at least one column of codes"):
        host.ebm.ColumnMarginals([host.ebm.Column.numeric()], [0.0], [1.0], np.zeros((1, 0)))
    with pytest.raises(ValueError, match="`smoothing`"):
        host.ebm.ColumnMarginals.fit(columns(host), data(10), smoothing=-1)
