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


class Own:
    """Gaussian noise as a kernel of a user's."""

    def __init__(self, variance):
        self.kernel = ebm.GaussianPerturbation(variance)

    def forward(self, x):
        return self.kernel.forward(x)

    def backward(self, y, num_samples):
        noise = torch.randn_like(y.expand(num_samples, *y.shape))
        return y + self.kernel.standard_deviation * noise


LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.mT.contiguous().mT,
    "expanded": lambda x: x[:, :1].expand_as(x),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("variances", [(0.3,), (0.1, 2.0)])
def test_copies_in_a_buffer(host, layout, variances):
    """Gaussian noise is drawn in place: the same numbers, and the data stay as they are."""
    x = LAYOUTS[layout](torch.randn(20, 3))
    before, cubic = x.clone(), ebm.EnergyBased(lambda x: x.pow(3).sum(-1), event_shape=(3,))
    found, expected = (
        host.loss_of(ebm.EnergyDiscrepancy(num_samples=4, perturbation=kernels), cubic, x)
        for kernels in ([cls(t) for t in variances] for cls in (ebm.GaussianPerturbation, Own))
    )
    torch.testing.assert_close(found.value, expected.value)
    torch.testing.assert_close(x, before, rtol=0, atol=0)
