"""Maximum likelihood: train an energy of few dimensions with draws of its base."""

from typing import Any

from jax import Array, lax

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.objectives.maximum_likelihood import maximum_likelihood
from pyro_ebm.numpyro.objectives.negatives import compare, record_effective_samples

__all__ = ["MaximumLikelihood"]


class MaximumLikelihood:
    r"""Objective that is the negative log-likelihood itself, in few dimensions.

    .. math::
        \ell(x) = U(x) + \log \frac1M \sum_{m=1}^M \frac{e^{-U(x_m)}}{p_0(x_m)}, \qquad
        x_m \sim p_0, \quad U = E - \log p_0

    It needs no MCMC. Energy and base are trained together. It can be relied on as long as many
    draws of the base count for the model: in more than a few dimensions, or once the energy has
    moved far from its base, hardly any does. Then the loss is too low by many nats, and its
    gradient is that of the few that do. ``effective_samples`` among the figures of health is how
    many equal ones the draws are worth.

    Args:
        num_samples: :math:`M`, draws for each element of the base's batch (usually there is one).

    Raises:
        ValueError: If the number is no positive integer; in ``loss``, if there is no base, or
            one without ``sample`` or ``log_prob``.
    """

    def __init__(self, *, num_samples: int = 1000) -> None:
        self.num_samples = check_positive_integer("num_samples", num_samples)

    def __repr__(self) -> str:
        return f"MaximumLikelihood(num_samples={self.num_samples})"

    def loss(self, rng_key: Array, distribution: Any, value: Array) -> Array:
        """Loss of each value, differentiable in the parameters of energy and base.

        Args:
            rng_key: Random key.
            distribution: An energy-based distribution.
            value: Shape ``(*batch, *event)``; held constant.

        Returns:
            Shape ``(*batch,)``: an estimate of the negative log-likelihood, low on average.
        """
        draws, log_density = self._draw(rng_key, distribution.base)
        compared = compare(distribution, lax.stop_gradient(value), draws)
        record_effective_samples(-compared.negative_energy)
        return maximum_likelihood(compared.positive, compared.negative, log_density)

    def _draw(self, rng_key: Array, base: Any) -> tuple[Array, Array]:
        """Draws of the base with their log-densities; constants."""
        if base is None:
            raise ValueError("Expected a base to draw from, got base=None.")
        try:
            draws = lax.stop_gradient(base.sample(rng_key, (self.num_samples,)))
            return draws, lax.stop_gradient(base.log_prob(draws))
        except NotImplementedError as error:
            raise ValueError(f"Expected a base with sample and log_prob, got {base}.") from error
