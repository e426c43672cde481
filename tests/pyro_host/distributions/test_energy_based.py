import pickle

import pyro
import pytest
import torch
from helpers.distributions.energy_based import *  # noqa: F403
from helpers.hosts.pyro import Bowl, normal

import pyro_ebm.pyro as ebm


def test_pickle():
    distribution = ebm.EnergyBased(Bowl(), normal())
    twin, value = pickle.loads(pickle.dumps(distribution)), distribution.sample()
    torch.testing.assert_close(twin.log_prob(value), distribution.log_prob(value))


def test_dtype():
    distribution = ebm.EnergyBased(Bowl().double(), event_shape=(3,))
    value = distribution.sample((2,))
    assert value.dtype == torch.float64
    assert distribution.log_prob(value).dtype == torch.float64


def test_draws_have_no_gradients():
    energy = Bowl()
    assert not ebm.EnergyBased(energy, normal()).sample((2,)).requires_grad
    with torch.no_grad():
        ebm.EnergyBased(energy, normal()).sample((2,))
    assert energy.weight.grad is None


def test_values_out_of_support():
    with pytest.raises(ValueError, match="support"):
        ebm.EnergyBased(Bowl(), normal()).log_prob(torch.full((2,), torch.nan))
    model = pyro.poutine.trace(
        lambda: pyro.sample("z", ebm.EnergyBased(lambda x: x.sum(-1) * torch.nan, normal()))
    )
    with pytest.raises(ValueError, match="z"):
        model.get_trace().compute_log_prob()
