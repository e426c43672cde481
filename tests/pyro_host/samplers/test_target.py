import pyro.distributions as dist
import pytest
import torch
from helpers.hosts.pyro import Bowl
from helpers.targets import normal_p_value

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.samplers.target import Target, initial_values


@pytest.mark.parametrize(
    "distribution",
    [
        dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0])),
        ebm.EnergyBased(lambda x: x[:, 0], dist.Dirichlet(torch.ones(3))),
    ],
)
def test_change_of_variables(distribution):
    target, position = Target.of(distribution), torch.randn(5, 2)
    bijection = torch.distributions.biject_to(distribution.support)
    value = bijection(position)
    expected = -distribution.log_prob(value) - bijection.log_abs_det_jacobian(position, value)
    torch.testing.assert_close(target.potential(position), expected)
    torch.testing.assert_close(target.position(target.value(position)), position)
    assert not target.is_unconstrained


def test_all_of_space():
    target = Target.of(dist.Normal(torch.zeros(3), 1.0).to_event(1))
    assert target.is_unconstrained
    assert target.log_volume(torch.randn(5, 3)).tolist() == [0.0] * 5


def test_initial_values_are_draws_of_the_base():
    distribution = ebm.EnergyBased(Bowl(), dist.Normal(2.0, 3.0)).expand([4])
    values = initial_values(distribution, (500,))
    assert values.shape == (500, 4)
    assert normal_p_value((values - 2.0) / 3.0) > 1e-3


@pytest.mark.parametrize(
    "distribution",
    [
        dist.Gamma(torch.full((4,), 9.0), 1.0),
        ebm.EnergyBased(
            Bowl(), event_shape=(), support=torch.distributions.constraints.positive
        ).expand([4]),
    ],
)
def test_initial_values_without_a_base(distribution):
    values = initial_values(distribution, (500,))
    assert values.shape == (500, 4)
    assert normal_p_value(values.log()) > 1e-3


def test_initial_values_have_the_dtype_of_the_energy():
    distribution = ebm.EnergyBased(Bowl().double(), event_shape=(3,))
    assert initial_values(distribution, (2,)).dtype == torch.float64
