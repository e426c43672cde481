"""Normalizing constants of energy-based distributions."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.distributions import biject_to

from pyro_ebm.core.checks import check_choice, check_positive_integer
from pyro_ebm.core.evidence import LogNormalizer, summarize_log_weights
from pyro_ebm.numpyro.distributions import EnergyBased
from pyro_ebm.numpyro.potentials import unconstrained_potential
from pyro_ebm.numpyro.samplers import MALA, Sampler

__all__ = ["log_normalizer"]


def log_normalizer(
    rng_key: Array,
    distribution: EnergyBased,
    *,
    method: str = "annealed",
    num_samples: int = 1000,
    num_temperatures: int = 100,
    sampler: Sampler | None = None,
) -> LogNormalizer:
    r"""Estimate :math:`\log Z` of :math:`p(x) = e^{-E(x)} p_0(x) / Z`.

    ``"importance"`` draws from the base: :math:`Z = \mathrm E_{p_0}[e^{-E(x)}]`.
    ``"annealed"`` walks from the base to the distribution through
    :math:`p_k \propto e^{-\beta_k E} p_0` with :math:`\beta_k = k / K`, and weighs
    :math:`\log w = -\sum_k (\beta_k - \beta_{k-1}) E(x_{k-1})`.

    Args:
        rng_key: Random key.
        distribution: Energy-based distribution whose base can be sampled and has a density.
        method: ``"annealed"`` or ``"importance"``.
        num_samples: Independent weights.
        num_temperatures: :math:`K`, each with one transition.
        sampler: Kernel that leaves a density invariant. Default: ``MALA(0.1)``.

    Returns:
        Estimate, standard error and effective sample size, each of the base's batch shape.

    Raises:
        ValueError: If there is no base, or an argument is out of range.

    References:
        | Annealed importance sampling (Neal, 2001)
    """
    check_choice("method", method, ("annealed", "importance"))
    check_positive_integer("num_samples", num_samples)
    check_positive_integer("num_temperatures", num_temperatures)
    if distribution.base is None:
        raise ValueError("Expected a distribution with a base to start from, got base=None.")
    if method == "importance":
        return _importance(rng_key, distribution, num_samples)
    sampler = sampler if sampler is not None else MALA(0.1)
    return _annealed(rng_key, distribution, sampler, num_samples, num_temperatures)


@partial(jax.jit, static_argnames="num_samples")
def _importance(rng_key: Array, distribution: EnergyBased, num_samples: int) -> LogNormalizer:
    return summarize_log_weights(distribution.importance_log_weights(rng_key, num_samples))


@partial(jax.jit, static_argnames=("sampler", "num_samples", "num_temperatures"))
def _annealed(
    rng_key: Array,
    distribution: EnergyBased,
    sampler: Sampler,
    num_samples: int,
    num_temperatures: int,
) -> LogNormalizer:
    start_key, chain_key = random.split(rng_key)
    bijection = biject_to(distribution.support)

    def step(carry: Any, at: Any) -> tuple[Any, None]:
        (position, log_weights), (key, inverse_temperature) = carry, at
        energies = distribution.evaluate(bijection(position))
        potential = unconstrained_potential(_tempered(distribution, inverse_temperature))
        state, _ = sampler.step(key, potential, sampler.init(potential, position))
        return (state.position, log_weights - energies / num_temperatures), None

    position = bijection.inv(distribution.base.sample(start_key, (num_samples,)))
    log_weights = jnp.zeros((num_samples, *distribution.base.batch_shape), position.dtype)
    inverse_temperatures = jnp.arange(1, num_temperatures + 1) / num_temperatures
    keys = random.split(chain_key, num_temperatures)
    carry, _ = lax.scan(step, (position, log_weights), (keys, inverse_temperatures))
    return summarize_log_weights(carry[1])


def _tempered(distribution: EnergyBased, inverse_temperature: Array) -> EnergyBased:
    return EnergyBased(
        lambda value: inverse_temperature * distribution.energy(value),
        distribution.base,
        support=distribution.support,
    )
