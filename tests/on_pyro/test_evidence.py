import math

import pyro.distributions as dist
import pytest
import torch
from oracles import LOG_NORMALIZER_QUARTIC

import pyro_ebm.pyro as ebm

pytestmark = pytest.mark.usefixtures("float64")


def quartic():
    return ebm.EnergyBased(lambda x: x.pow(4) / 4, dist.Normal(0.0, 1.0))


def gaussian(dims, precision=3.0):
    """log Z = -dims/2 log(1 + precision)."""
    base = dist.Normal(torch.zeros(dims), 1.0).to_event(1)
    return ebm.EnergyBased(lambda x: 0.5 * precision * x.square().sum(-1), base)


@pytest.mark.parametrize("method", ["annealed", "importance"])
@pytest.mark.parametrize(
    ("distribution", "truth"),
    [
        (quartic(), LOG_NORMALIZER_QUARTIC),
        (gaussian(2), -math.log(4)),
        (gaussian(4), -2 * math.log(4)),
    ],
)
def test_estimate_is_within_its_error(method, distribution, truth):
    result = ebm.log_normalizer(distribution, method=method, num_samples=4000)
    assert result.standard_error < 0.1
    assert abs(result.estimate - truth) < 4 * result.standard_error


def test_annealing_goes_where_importance_sampling_cannot():
    truth = -8 * math.log(4)
    annealed = ebm.log_normalizer(gaussian(16), num_samples=1000, num_temperatures=200)
    importance = ebm.log_normalizer(gaussian(16), method="importance", num_samples=1000)
    assert abs(annealed.estimate - truth) < 4 * annealed.standard_error
    assert annealed.effective_sample_size > 10 * importance.effective_sample_size


def test_the_reported_error_is_the_spread_of_estimates():
    results = [
        ebm.log_normalizer(gaussian(2), num_samples=200, num_temperatures=10) for _ in range(200)
    ]
    spread = torch.stack([result.estimate for result in results]).std()
    claimed = torch.stack([result.standard_error for result in results]).mean()
    assert spread.item() == pytest.approx(claimed.item(), rel=0.2)


def test_one_estimate_for_each_batch_element_of_the_base():
    base = dist.Normal(0.0, torch.tensor([1.0, 2.0]))
    distribution = ebm.EnergyBased(lambda x: 0.5 * x.square(), base)
    result = ebm.log_normalizer(distribution, num_samples=4000)
    assert result.estimate.tolist() == pytest.approx(
        [-0.5 * math.log(2), -0.5 * math.log(5)], abs=0.05
    )


def test_constrained_support():
    # exp(-x) times Gamma(2, 1): Z = 2^-2.
    distribution = ebm.EnergyBased(lambda x: x, dist.Gamma(2.0, 1.0))
    result = ebm.log_normalizer(distribution, num_samples=4000)
    assert abs(result.estimate + 2 * math.log(2)) < 4 * result.standard_error


def test_bad_arguments():
    with pytest.raises(ValueError, match="with a base to start from, got base=None"):
        ebm.log_normalizer(ebm.EnergyBased(lambda x: x, event_shape=()))
    with pytest.raises(ValueError, match="`method` to be one of .*, got 'magic'"):
        ebm.log_normalizer(quartic(), method="magic")
    with pytest.raises(ValueError, match="`num_samples` to be an integer of at least 1, got 0"):
        ebm.log_normalizer(quartic(), num_samples=0)
