"""Pseudo-spherical contrastive divergence with NumPyro."""

from jax import Array, lax

from pyro_ebm.core.distributions.checks import check_one_distribution
from pyro_ebm.core.objectives import pseudo_spherical as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.objectives.negatives import draw_negatives


class PseudoSpherical(core.PseudoSpherical):
    """Contrastive divergence with weights, which are zero under a mask.

    Gamma and the traps: see the base class.

    Example:
        >>> from jax import numpy as jnp, random
        >>> from pyro_ebm.numpyro import EnergyBased
        >>> bowl, x = EnergyBased(lambda x: x**2 / 2, event_shape=()), jnp.arange(4.0)
        >>> loss = PseudoSpherical(-0.25).loss(random.key(0), bowl, x, chains=x[::-1]).value
        >>> bool((abs(loss) < 1e-5).all())
        True
    """

    _constant = staticmethod(lax.stop_gradient)

    def loss(
        self,
        rng_key: Array,
        distribution: EnergyBased,
        value: Array,
        *,
        chains: Array | None = None,
        weights: Array | None = None,
    ) -> Loss:
        check_one_distribution(distribution)
        value = lax.stop_gradient(value)
        draws = draw_negatives(rng_key, self, distribution, value, chains)
        return self._loss(distribution, value, draws, weights)
