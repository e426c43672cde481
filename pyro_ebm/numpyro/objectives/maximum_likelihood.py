"""Maximum likelihood with NumPyro."""

from typing import Any

from jax import Array, lax

from pyro_ebm.core.objectives import maximum_likelihood as core
from pyro_ebm.core.objectives.loss import Loss
from pyro_ebm.core.objectives.negatives import evaluate_energies, weight_metrics
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.objectives.negatives import detached_metrics


class MaximumLikelihood(core.MaximumLikelihood):
    """Maximum likelihood in few dimensions.

    Its limits: see the base class.

    Example:
        >>> from jax import numpy as jnp, random
        >>> from numpyro.distributions import Uniform
        >>> from pyro_ebm.numpyro import EnergyBased
        >>> density = EnergyBased(jnp.zeros_like, Uniform(0.0, 2.0))
        >>> jnp.exp(-MaximumLikelihood().loss(random.key(0), density, jnp.ones(2)).value).tolist()
        [0.5, 0.5]
    """

    def loss(self, rng_key: Array, distribution: EnergyBased, value: Array) -> Loss:
        draws, log_density = self._draw(rng_key, distribution.base)
        energies = evaluate_energies(distribution, lax.stop_gradient(value), draws)
        loss = core.maximum_likelihood(energies.positive, energies.negative, log_density)
        weights = weight_metrics(-lax.stop_gradient(energies.negative_energy))
        return Loss(loss, {**detached_metrics(energies), **weights})

    def _draw(self, rng_key: Array, base: Any) -> tuple[Array, Array]:
        """Constant draws of the base, with constant log-densities."""
        if base is None:
            raise ValueError("Expected a base to draw from, got base=None.")
        try:
            draws = lax.stop_gradient(base.sample(rng_key, (self.num_samples,)))
            return draws, lax.stop_gradient(base.log_prob(draws))
        except NotImplementedError as error:
            raise ValueError(f"Expected a base with sample and log_prob, got {base}.") from error
