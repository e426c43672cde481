"""Exact log-normalizers of codes, and brackets that contain them."""

import math

import numpy as np
import pytest

from helpers.normalizers import contains

rng = np.random.default_rng(0)


def ising(host, num_bits=16, batch_shape=()):
    """A chain of bits in pairs: Z is known by its transfer matrix."""
    base = host.dist.Bernoulli(host.array(np.full((*batch_shape, num_bits), 0.5))).to_event(1)
    return host.ebm.EnergyBased(lambda x: -1.5 * (x[:, 1:] * x[:, :-1]).sum(-1), base)


def log_z_of_chain(num_bits=16):
    transfer = np.array([[1.0, 1.0], [1.0, math.exp(1.5)]])
    return math.log(np.linalg.matrix_power(transfer, num_bits - 1).sum()) - num_bits * math.log(2)


def test_sum_over_all_values(host):
    result = host.log_normalizer(ising(host), method="enumeration")
    assert float(result.estimate) == pytest.approx(log_z_of_chain(), abs=1e-4)
    assert float(result.upper - result.lower) == 0.0
    batched = host.log_normalizer(ising(host, 3, (2,)), method="enumeration")
    np.testing.assert_allclose(np.asarray(batched.estimate), [log_z_of_chain(3)] * 2, atol=1e-5)


def test_two_rows_of_a_table(host):
    columns = [host.ebm.Column.nominal(2), host.ebm.Column.ordinal(3)]
    log_probs = np.array([[math.log(0.5)] * 2 + [-np.inf], [math.log(1 / 3)] * 3])
    row = host.ebm.ColumnMarginals(columns, [0.0, 0.0], [1.0, 1.0], log_probs)
    base = row.expand((2,)).to_event(1)
    model = host.ebm.EnergyBased(lambda x: (x[:, 0] * x[:, 1]).sum(-1), base)
    # Columns are independent: the mean of exp(-x y) over two codes of each.
    expected = math.log(0.75 + 0.25 * math.exp(-1)) + math.log(
        (5 + math.exp(-1) + 2 * math.exp(-2) + math.exp(-4)) / 9
    )
    result = host.log_normalizer(model, method="enumeration")
    assert float(result.estimate) == pytest.approx(expected, abs=1e-5)


@pytest.mark.once
def test_brackets_contain_the_sum(host):
    result = host.log_normalizer(ising(host), num_samples=200, num_temperatures=20, num_moves=10)
    assert contains(result, log_z_of_chain())
    assert float(result.upper - result.lower) < 1.0


def test_pushforward_of_bits(host):
    latent = host.dist.Bernoulli(host.array(np.full(3, 0.5))).to_event(1)
    base = host.ebm.Pushforward(latent, lambda z: 2.0 * z + 1.0)
    model = host.ebm.EnergyBased(lambda x: x.sum(-1), base)
    log_z = 3 * math.log((math.exp(-1) + math.exp(-3)) / 2)
    exact = host.log_normalizer(model, method="enumeration")
    assert float(exact.estimate) == pytest.approx(log_z, abs=1e-5)
    found = host.log_normalizer(model, num_samples=200, num_temperatures=10, num_moves=5)
    assert contains(found, log_z)


@pytest.mark.once
def test_bracket_of_a_mixed_event(host):
    columns = [host.ebm.Column.numeric(), host.ebm.Column.nominal(3)]
    base = host.ebm.ColumnMarginals(columns, [0.0, 0.0], [2.0, 1.0], np.log(np.full((2, 3), 1 / 3)))
    # Per code c, the mean of exp(-(x - c)^2 / 2) under N(0, 4).
    model = host.ebm.EnergyBased(lambda x: 0.5 * (x[:, 0] - x[:, 1]) ** 2, base)
    log_z = math.log(np.mean([math.exp(-(c**2) / 10) / math.sqrt(5) for c in range(3)]))
    result = host.log_normalizer(model, num_samples=400, num_temperatures=30, num_moves=20)
    assert contains(result, log_z)


def test_too_many_values(host):
    with pytest.raises(ValueError, match="at most 1048576 values .* got 2.1e"):
        host.log_normalizer(ising(host, 21), method="enumeration")
    normal = host.ebm.EnergyBased(lambda x: 0 * x, host.dist.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="discrete support"):
        host.log_normalizer(normal, method="enumeration")
    with pytest.raises(ValueError, match="got one with codes: use 'annealed' or"):
        host.log_normalizer(ising(host, 3), method="grid")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_energies_that_are_no_numbers(host, bad):
    base = host.dist.Bernoulli(host.array(np.full(3, 0.5))).to_event(1)
    model = host.ebm.EnergyBased(lambda x: x.sum(-1) + bad, base, validate_args=False)
    with pytest.raises(ValueError, match="to be a number at all values, and finite at some"):
        host.log_normalizer(model, method="enumeration")
