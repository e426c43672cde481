"""Contrastive divergence with NumPyro."""

from jax import Array, lax

from pyro_ebm.core.objectives import contrastive_divergence as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.objectives.negatives import draw_negatives, move_data


class ContrastiveDivergence(core.ContrastiveDivergence):
    """Contrastive divergence; no gradient flows through the chains.

    Starts, chains and settings are explained in the base class.

    Example:
        >>> from jax import numpy as jnp, random
        >>> from pyro_ebm.numpyro import EnergyBased, Langevin
        >>> one_step = ContrastiveDivergence(sampler=Langevin(0.01), num_steps=1, init="data")
        >>> bowl = EnergyBased(lambda x: x**2, event_shape=())
        >>> bool(one_step.loss(random.key(0), bowl, jnp.array([9.0])).value > 0)
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
    ) -> Loss:
        value = lax.stop_gradient(value)
        if chains is None and self.init == "data":
            draws = move_data(rng_key, self, distribution, value)
        else:
            draws = draw_negatives(rng_key, self, distribution, value, chains)
        return self._loss(distribution, value, draws)
