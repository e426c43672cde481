import math

import pyro.distributions as dist
import torch
from helpers.evidence.log_normalizer import *  # noqa: F403
from helpers.evidence.log_normalizer import (
    MIXTURE,
    QUARTIC,
    check_bad_run,
    check_bracket,
    contains,
    mixture,
    quartic,
)
from helpers.hosts.pyro import normal

import pyro_ebm.pyro as ebm

# What would take NumPyro long to compile, and cost in calls.


def test_brackets_in_two_dimensions(host):
    check_bracket(host, 2, 200, 30, step_size=1.0)


def test_brackets_and_errors_over_many_runs(host):
    # The elements of a batch are runs of their own.
    options = {"num_samples": 200, "num_temperatures": 30}
    result = ebm.log_normalizer(mixture(host, 2, (150,)), **options)
    assert result.estimate.shape == (150,)
    assert (result.lower < MIXTURE).sum() >= 140
    assert (result.upper > MIXTURE).sum() >= 140
    scores = (result.estimate - MIXTURE) / result.standard_error
    # Families overstate errors where moves part copies: .71 (.02) over 900 runs.
    assert 0.55 < scores.square().mean().sqrt() < 1.35
    assert (result.upper - result.lower).median() < 0.4
    assert (result.estimate[1:] != result.estimate[:-1]).all()


def test_chains_that_do_not_move_widen_the_bracket_and_warn(host):
    check_bad_run(host, sampler=ebm.MALA(1e-6, target_accept_prob=None))


def test_weights_are_unbiased_whatever_the_schedule(host):
    options = {"num_samples": 50_000, "num_temperatures": 2, "num_moves": 1}
    result = ebm.log_normalizer(quartic(host), **options)
    weights = (result.log_weights - QUARTIC).exp()
    assert abs(weights.mean() - 1) < 4 * weights.std() / math.sqrt(50_000)
    inverse = (QUARTIC - result.reverse_log_weights).exp()
    assert abs(inverse.mean() - 1) < 6 * inverse.std() / math.sqrt(50_000)
    assert weights.std() > 0.05


def test_supports_and_batches():
    # exp(-x) times Gamma(2, rate): Z = (rate / (rate + 1))^2.
    rates = torch.tensor([1.0, 3.0])
    distribution = ebm.EnergyBased(lambda x: x, dist.Gamma(2.0, rates))
    truth = 2 * torch.log(rates / (rates + 1))
    options = {"num_samples": 500, "num_temperatures": 20, "num_moves": 20}
    for method in ("annealed", "grid"):
        result = ebm.log_normalizer(distribution, method=method, **options)
        assert (abs(result.estimate - truth) < 4 * result.standard_error + 1e-3).all()
        assert result.lower.shape == result.upper.shape == (2,)
    assert contains(result, truth)


def test_cost():
    calls = []

    def energy(x):
        calls.append(len(x))
        return 0.1 * x.pow(2).sum(-1)

    distribution = ebm.EnergyBased(energy, normal())
    options = {"num_samples": 50, "num_temperatures": 7, "num_moves": 11}
    ebm.log_normalizer(distribution, **options)
    pilot, there_and_back, draws = 100 * (1 + 2 * 14), 2 * 50 * (1 + 2 * 7), 50 * (1 + 11)
    look = 100 + 50  # at the starts, without a gradient
    assert sum(calls) == look + pilot + there_and_back + draws
    calls.clear()
    ebm.log_normalizer(distribution, sampler=ebm.HMC(0.1, num_steps=3), **options)
    assert sum(calls) == look + 100 * (1 + 4 * 14) + 2 * 50 * (1 + 4 * 7) + 50 * (1 + 3 * 11)
