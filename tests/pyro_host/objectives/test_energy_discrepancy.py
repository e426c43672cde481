import pytest
import torch
from helpers.objectives.energy_discrepancy import *  # noqa: F403

import pyro_ebm.pyro as ebm


def test_perturbed_copies_share_one_hop():
    kernel, x = ebm.GaussianPerturbation(0.25), torch.zeros(20000, 1)
    copies = kernel.backward(kernel.forward(x), 2)
    assert copies.shape == (2, 20000, 1)
    assert copies.var().item() == pytest.approx(0.5, rel=0.03)
    assert (copies[0] * copies[1]).mean().item() == pytest.approx(0.25, rel=0.05)
