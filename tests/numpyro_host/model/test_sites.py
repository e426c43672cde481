import jax.numpy as jnp
import numpyro.distributions as dist
from jax import random

from pyro_ebm.numpyro.model.sites import find_energy, map_energy


def test_energy_behind_wrappers(prior):
    x = random.normal(random.key(1), (4, 5, 2))
    mask = jnp.arange(5) < 2
    shift = dist.transforms.AffineTransform(2.0, 1.0)
    for fn in (
        prior.expand((4, 5)),
        prior.expand((5,)).mask(mask).expand((4, 5)),
        prior.expand((4, 5)).mask(mask).to_event(1),
        prior.expand((4, 5)).mask(False),
        dist.TransformedDistribution(prior.expand((4, 5)), shift),
    ):
        assert find_energy(fn) is not None
        mapped = map_energy(fn, x, lambda distribution, x: distribution.log_prob(x))
        assert mapped.shape == fn.batch_shape
        assert jnp.allclose(mapped, fn.log_prob(x), atol=1e-5)
    assert find_energy(dist.Normal(0.0, 1.0)) is None
