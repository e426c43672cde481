import numpy as np
import pytest

from helpers.targets import normal_p_value

DIRICHLET = [2.0, 3.0, 4.0]


@pytest.mark.parametrize("energy_based", [False, True])
def test_change_of_variables(host, energy_based):
    distribution = host.dist.Dirichlet(host.array(DIRICHLET))
    if energy_based:
        distribution = host.ebm.EnergyBased(lambda x: 2 * x[:, 0], distribution)
    target = host.Target.of(distribution)
    position = host.array(np.random.default_rng(0).normal(size=(5, 2)))
    bijection = host.biject_to(distribution.support)
    value = bijection(position)
    expected = -distribution.log_prob(value) - bijection.log_abs_det_jacobian(position, value)
    np.testing.assert_allclose(target.potential(position), expected, rtol=1e-5)
    np.testing.assert_allclose(target.position(target.value(position)), position, atol=1e-5)
    assert not target.is_unconstrained


def test_all_of_space(host):
    target = host.Target.of(host.normal((3,)))
    assert target.is_unconstrained
    assert target.log_volume(host.array(np.ones((5, 3)))).tolist() == [0.0] * 5


def test_initial_values_are_draws_of_the_base(host):
    base = host.dist.Normal(2.0, 3.0)
    distribution = host.ebm.EnergyBased(host.Bowl(), base).expand((4,))
    values = host.initial_values(distribution, (500,))
    assert values.shape == (500, 4)
    assert normal_p_value((values - 2.0) / 3.0) > 1e-3


@pytest.mark.parametrize("energy_based", [False, True])
def test_initial_values_without_a_base(host, energy_based):
    distribution = host.dist.Gamma(host.array([9.0] * 4), 1.0)
    if energy_based:
        support = host.constraints.positive
        distribution = host.ebm.EnergyBased(host.Bowl(), event_shape=(), support=support)
        distribution = distribution.expand((4,))
    values = host.initial_values(distribution, (500,))
    assert values.shape == (500, 4)
    assert normal_p_value(np.log(values)) > 1e-3
