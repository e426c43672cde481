"""Normalizing constants of energy-based distributions."""

import torch
from torch import Tensor
from torch.distributions import biject_to

from pyro_ebm.core.checks import check_choice, check_positive_integer
from pyro_ebm.core.evidence import LogNormalizer, summarize_log_weights
from pyro_ebm.pyro.distributions import EnergyBased
from pyro_ebm.pyro.potentials import unconstrained_potential
from pyro_ebm.pyro.samplers import MALA, Sampler

__all__ = ["log_normalizer"]


def log_normalizer(
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
        return summarize_log_weights(distribution.importance_log_weights(num_samples))
    kernel = sampler if sampler is not None else MALA(0.1)
    return summarize_log_weights(
        _annealed_log_weights(distribution, kernel, num_samples, num_temperatures)
    )


def _annealed_log_weights(
    distribution: EnergyBased, sampler: Sampler, num_samples: int, num_temperatures: int
) -> Tensor:
    bijection = biject_to(distribution.support)
    position = bijection.inv(distribution.base.sample((num_samples,)))
    log_weights = torch.zeros((), dtype=position.dtype, device=position.device)
    for step in range(1, num_temperatures + 1):
        with torch.no_grad():
            energy = distribution.evaluate(bijection(position))
        log_weights = log_weights - energy / num_temperatures
        potential = unconstrained_potential(_tempered(distribution, step / num_temperatures))
        state, _ = sampler.step(potential, sampler.init(potential, position))
        position = state.position
    return log_weights


def _tempered(distribution: EnergyBased, inverse_temperature: float) -> EnergyBased:
    return EnergyBased(
        lambda value: inverse_temperature * distribution.energy(value),
        distribution.base,
        support=distribution.support,
    )
