import pyro.distributions as dist
import pytest
import torch
from helpers.hosts.pyro import Bowl
from helpers.samplers.target import *  # noqa: F403

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.samplers.target import initial_values


def test_initial_values_have_the_dtype_of_the_energy():
    distribution = ebm.EnergyBased(Bowl().double(), event_shape=(3,))
    assert initial_values(distribution, (2,)).dtype == torch.float64


@pytest.mark.parametrize("kernel", [ebm.Langevin(0.1), ebm.MALA()])
def test_kernels_need_a_gradient(kernel):
    """One that is hidden by mistake would be zero, and draws of unadjusted kernels wrong."""
    net, base = Bowl(), dist.Normal(torch.zeros(2), 1.0).to_event(1)
    hidden = ebm.EnergyBased(torch.no_grad()(lambda x: net(x)), event_shape=(2,))
    with pytest.raises(ValueError, match="a gradient in the value, got none: .* SMC and Grid"):
        ebm.run_chains(kernel, hidden, num_samples=5)
    assert ebm.EnergyBased(torch.no_grad()(lambda x: net(x)), base).sample((3,)).shape == (3, 2)
