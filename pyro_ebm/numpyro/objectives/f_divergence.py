"""f-divergence minimization with NumPyro."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from pyro_ebm.core.objectives import divergences
from pyro_ebm.core.objectives import f_divergence as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.objectives.negatives import draw_negatives

Function = Callable[[Array], Array]


class FDivergence(core.FDivergence):
    """f-EBM; with ``optax.multi_transform`` the critic gets a learning rate of its own.

    The base class lists the divergences and explains the settings.

    Example:
        >>> from jax import numpy as jnp, random
        >>> from pyro_ebm.numpyro import EnergyBased
        >>> objective = FDivergence("kl")
        >>> data, model = jnp.array([1.0]), EnergyBased(lambda x: x, event_shape=())
        >>> draws, critic = jnp.zeros(2), jnp.zeros_like
        >>> objective.loss(random.key(0), model, data, critic=critic, chains=draws).value.tolist()
        [1.0]
    """

    _constant = staticmethod(lax.stop_gradient)

    def __post_init__(self) -> None:
        super().__post_init__()
        if divergences.find_divergence(self.f) is None:
            with jax.ensure_compile_time_eval():  # An objective may be made inside `jit`.
                divergences.check_function(self.divergence, jnp.linspace(-3.0, 3.0, 25))

    def loss(
        self,
        rng_key: Array,
        distribution: EnergyBased,
        value: Array,
        *,
        critic: Function,
        chains: Array | None = None,
    ) -> Loss:
        value = lax.stop_gradient(value)
        draws = draw_negatives(rng_key, self, distribution, value, chains)
        return self._loss(distribution, value, draws, critic)

    @staticmethod
    def _derivative(function: Function) -> Function:
        return jax.grad(lambda u: function(u).sum())
