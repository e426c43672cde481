import pyro.distributions as dist
import pytest
import torch
from helpers.samplers.grid import *  # noqa: F403

import pyro_ebm.pyro as ebm


def test_grids_of_half_precision():
    """Cells have more numbers than such a type."""
    one = torch.tensor(1.0, dtype=torch.bfloat16)
    law = ebm.EnergyBased(lambda x: x**2 / 2, dist.Normal(0 * one, one), sampler=ebm.Grid())
    variance = law.sample((20_000,)).double().var().item()
    assert variance == pytest.approx(0.5, abs=5 * 0.5 * (2 / 20_000) ** 0.5)
