"""Bounds of normalizing constants from draws of a generator."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_ebm.core.distributions.checks import check_energy_based, check_one_distribution
from pyro_ebm.core.evidence import bounds as core
from pyro_ebm.core.evidence.log_normalizer import check_log_weights
from pyro_ebm.core.objectives.bidirectional_bounds import half_squared_norm
from pyro_ebm.core.objectives.generator import volume_options
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.objectives.generator import VariationalGenerator


@torch.no_grad()
def generator_bounds(
    distribution: EnergyBased,
    generator: Any,
    *,
    encoder: Callable[[Tensor], Any] | None = None,
    entropy: str = "exact",
    num_samples: int = 1000,
    num_iterations: int | None = None,
    num_probes: int = 1,
    log_sobolev_constant: float | None = None,
) -> core.GeneratorBounds:
    r"""Bound :math:`\log Z` by draws of a ``Pushforward``, transformed distribution or flow.

    What is a bound, and arguments: :class:`~pyro_ebm.core.evidence.bounds.GeneratorBoundsSettings`.

    Example:
        >>> import torch, pyro.distributions as dist, pyro_ebm.pyro as ebm
        >>> density = ebm.EnergyBased(lambda x: x**2 / 2, event_shape=())
        >>> generator = ebm.Pushforward(dist.Normal(torch.zeros(()), 1.0), lambda z: 1.0 * z)
        >>> print(ebm.generator_bounds(density, generator, log_sobolev_constant=1.0))
        log Z = 0.919 ± 0.000 in [0.919, 0.919], effective samples 1000 of 1000
    """
    settings = core.GeneratorBoundsSettings(
        entropy=entropy,
        num_samples=num_samples,
        num_iterations=num_iterations,
        num_probes=num_probes,
        log_sobolev_constant=log_sobolev_constant,
    )
    check_energy_based(distribution, EnergyBased)
    check_one_distribution(distribution)
    options = volume_options(settings)
    variational = VariationalGenerator.of(distribution, generator, encoder, **options)
    draws = variational.compare(distribution, variational.draw(num_samples))
    check_log_weights(distribution, draws.log_ratio, "draws of the generator")
    return core.summarize_bounds(draws.log_ratio, half_squared_norm(draws.ratio_gradient), settings)
