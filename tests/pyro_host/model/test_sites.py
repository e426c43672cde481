import pyro.distributions as dist
import torch
from helpers.hosts.pyro import MLP, prior
from torch.distributions.transforms import AffineTransform

from pyro_ebm.pyro.model.sites import find_energy, map_energy


def test_energy_behind_wrappers():
    x, mask, plain = torch.randn(4, 5, 2), torch.arange(5) < 2, prior(MLP())
    for fn in (
        plain.expand([4, 5]),
        plain.expand([5]).mask(mask).expand([4, 5]),
        plain.expand([4, 5]).mask(mask).to_event(1),
        plain.expand([4, 5]).mask(False),
        dist.TransformedDistribution(plain.expand([4, 5]), [AffineTransform(2.0, 1.0)]),
    ):
        assert find_energy(fn) is not None
        mapped = map_energy(fn, x, lambda distribution, x: distribution.log_prob(x))
        assert mapped.shape == fn.batch_shape
        torch.testing.assert_close(mapped, fn.log_prob(x), atol=1e-5, rtol=1e-5)
    assert find_energy(dist.Normal(0.0, 1.0)) is None
