import torch
from helpers.hosts.pyro import Bowl
from helpers.samplers.target import *  # noqa: F403

import pyro_ebm.pyro as ebm
from pyro_ebm.pyro.samplers.target import initial_values


def test_initial_values_have_the_dtype_of_the_energy():
    distribution = ebm.EnergyBased(Bowl().double(), event_shape=(3,))
    assert initial_values(distribution, (2,)).dtype == torch.float64
