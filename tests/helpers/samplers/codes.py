"""Chains of codes: their starts, derivatives that are 0 or infinite, and counts."""

import math

import numpy as np
import pytest

from helpers.samplers.gibbs import codes, p_value


def test_codes_without_derivatives(host):
    with pytest.raises(ValueError, match="derivatives in its codes for GibbsWithGradients"):
        host.run_chains(host.ebm.GibbsWithGradients(), codes(host), num_samples=5)


def test_derivatives_that_are_zero_at_the_start(host):
    base = host.dist.Bernoulli(host.array(np.full(4, 0.5))).to_event(1)
    squares = host.ebm.EnergyBased(lambda x: (x**2).sum(-1), base)
    start = {"init": host.array(np.zeros((3, 4))), "num_samples": 40, "check": False}
    draws = host.run_chains(host.ebm.GibbsWithGradients(), squares, **start).samples
    assert 0 < host.to_numpy(draws).mean() < 0.6


@pytest.mark.parametrize("center", [2, 3])
def test_chains_that_all_start_at_a_minimum(host, center):
    base = host.dist.Bernoulli(host.array(np.full(6, 0.5))).to_event(1)
    square = host.ebm.EnergyBased(lambda x: (x.sum(-1) - center) ** 2, base)
    start = {"init": host.array([[1.0] * center + [0.0] * (6 - center)]), "num_samples": 40}
    draws = host.run_chains(host.ebm.GibbsWithGradients(), square, check=False, **start).samples
    assert len(np.unique(host.to_numpy(draws)[0], axis=0)) > 1


def test_derivatives_that_are_infinite(host):
    base = host.dist.Categorical(host.array(np.full((2, 4), 0.25))).to_event(1)
    roots = host.ebm.EnergyBased(lambda x: 0.5 * (x**0.5).sum(-1), base)
    options = {"init": host.array(np.tile([0, 3], (2000, 1))), "num_warmup": 40, "check": False}
    chains = host.run_chains(host.ebm.GibbsWithGradients(), roots, num_samples=2, **options)
    law = np.exp(-0.5 * np.arange(4) ** 0.5)
    for column in host.to_numpy(chains.samples)[:, -1].T:
        assert p_value(np.bincount(column, minlength=4), law) > 1e-3


@pytest.mark.usefixtures("float64")
def test_categories_in_double_precision_stay_integers(host):
    base = host.dist.Categorical(host.array(np.full((2, 3), 1 / 3))).to_event(1)
    model = host.ebm.EnergyBased(lambda x: -(host.array([0.0, 1.0, 2.0])[x]).sum(-1), base)
    chains = host.run_chains(host.ebm.Gibbs(), model, num_samples=200, check=False)
    law = np.exp(np.arange(3.0))
    kept = host.to_numpy(chains.samples)[:, ::2].reshape(-1, 2)
    for column in kept.T:
        assert p_value(np.bincount(column, minlength=3), law) > 1e-3
    assert kept.dtype == host.sample(model, (5,)).dtype


def test_counts_of_the_host(host):
    base = host.dist.Binomial(3, host.array([0.5, 0.2])).to_event(1)
    model = host.ebm.EnergyBased(lambda x: -x.sum(-1), base)
    start = host.array(np.ones((4000, 2)))
    draws = host.to_numpy(host.move_values(host.ebm.Gibbs(), model, start, 3).samples)
    for column, odds in zip(draws.T, (math.e, math.e / 4), strict=True):
        assert column.mean() == pytest.approx(3 * odds / (1 + odds), abs=0.06)
    unequal = host.dist.Binomial(host.array([3.0, 2.0]), host.array([0.5, 0.2])).to_event(1)
    with pytest.raises(ValueError, match="as many codes in all columns, got codes up to"):
        host.run_chains(host.ebm.Gibbs(), unequal, num_samples=5)
    unbounded = host.ebm.EnergyBased(lambda x: 0.1 * x, host.dist.Poisson(host.array(3.0)))
    with pytest.raises(ValueError, match="or codes 0, 1, ... up to a last one, got Integer"):
        host.sample(unbounded, (5,))


def test_a_code_of_probability_zero_is_no_divergence(host):
    """Where it is proposed nothing is lost: a warning would be an error."""
    log_probs = [[math.log(0.5), -math.inf, math.log(0.5)]]
    base = host.ebm.ColumnMarginals([host.ebm.Column.ordinal(3)], [0.0], [1.0], log_probs)
    model = host.ebm.EnergyBased(lambda x: x.sum(-1), base)
    chains = host.run_chains(host.ebm.GibbsWithGradients(), model, num_samples=99, check=False)
    assert set(host.to_numpy(chains.samples).ravel()) == {0, 2}


@pytest.mark.parametrize(("name", "numeric"), [("Gibbs", "HMC"), ("GibbsWithGradients", "MALA")])
def test_infinite_derivatives_beside_numbers(host, name, numeric):
    columns = [host.ebm.Column.numeric(), host.ebm.Column.ordinal(3)]
    base = host.ebm.ColumnMarginals(columns, [0.0] * 2, [1.0] * 2, np.log(np.full((2, 3), 1 / 3)))
    model = host.ebm.EnergyBased(lambda x: 0.5 * (x[:, 0] - x[:, 1] ** 0.5) ** 2, base)
    kernel = getattr(host.ebm, name)(getattr(host.ebm, numeric)(0.5))
    start = {"init": host.array(np.zeros((2000, 2))), "num_warmup": 60, "check": False}
    draws = host.to_numpy(host.run_chains(kernel, model, num_samples=2, **start).samples)[:, -1]
    # Given a code, the number is normal with mean sqrt(code) / 2 and variance 1 / 2.
    law = np.exp(-np.arange(3) / 4)
    assert p_value(np.bincount(draws[:, 1].astype(int), minlength=3), law) > 1e-3
    left = draws[:, 0] - np.sqrt(draws[:, 1]) / 2
    assert left.mean() == pytest.approx(0, abs=0.06)
    assert left.std() == pytest.approx(math.sqrt(0.5), rel=0.07)
    assert host.sample(model, (5,)).shape == (5, 2)


@pytest.mark.parametrize(("code", "message"), [(0.5, "1 in column 1, got 0.5"), (2, "got 2")])
def test_starts_that_are_no_codes(host, code, message):
    bits = host.dist.Bernoulli(host.array(np.full(2, 0.5))).to_event(1)
    init = host.array([[0.0, 1.0], [1.0, code]])
    with pytest.raises(ValueError, match=f"`init` to have codes .*{message}"):
        host.run_chains(host.ebm.Gibbs(), bits, init=init, num_samples=5)
    categories = host.dist.Categorical(host.array(np.full((2, 3), 1 / 3))).to_event(1)
    with pytest.raises(ValueError, match="codes 0, ..., 2 in column 0, got -1"):
        host.run_chains(host.ebm.Gibbs(), categories, init=-1 - init, num_samples=5)


def test_no_chain_starts_where_its_energy_is_infinite(host):
    """Two of six bits are set; one change of a bit leads to nothing but infinite energies."""
    base = host.dist.Bernoulli(host.array(np.full(6, 0.5))).to_event(1)
    pairs = host.ebm.EnergyBased(
        lambda x: host.xp.where(x.sum(-1) == 2, 0.0, np.inf), base, sampler=host.ebm.Gibbs()
    )
    assert set(host.sample(pairs, (500,)).sum(-1).tolist()) == {2}
