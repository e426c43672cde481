"""Bounds of normalizing constants from draws of a generator."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array, random
from jax.tree_util import register_dataclass
from numpyro.util import not_jax_tracer

from pyro_ebm.core.distributions.checks import check_energy_based, check_one_distribution
from pyro_ebm.core.evidence import bounds as core
from pyro_ebm.core.evidence.log_normalizer import check_log_weights
from pyro_ebm.core.objectives.bidirectional_bounds import half_squared_norm
from pyro_ebm.core.objectives.generator import volume_options
from pyro_ebm.numpyro.distributions.bound_energy import StaticPytree
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.distributions.flows import as_distribution
from pyro_ebm.numpyro.objectives.generator import VariationalGenerator
from pyro_ebm.numpyro.samplers.base import check_rng_key

register_dataclass(core.GeneratorBounds)


def generator_bounds(
    rng_key: Array,
    distribution: EnergyBased,
    generator: Any,
    *,
    encoder: Callable[[Array], Any] | None = None,
    entropy: str = "exact",
    num_samples: int = 1000,
    num_iterations: int | None = None,
    num_probes: int = 1,
    log_sobolev_constant: float | None = None,
) -> core.GeneratorBounds:
    r"""Bound :math:`\log Z` by draws of a ``Pushforward``, transformed distribution or flow.

    What is a bound, and arguments: :class:`~pyro_ebm.core.evidence.bounds.GeneratorBoundsSettings`.
    New parameters of the same modules compile nothing again.

    Example:
        >>> import jax.numpy as jnp, numpyro.distributions as dist, pyro_ebm.numpyro as ebm
        >>> from jax import random
        >>> density = ebm.EnergyBased(lambda x: x**2 / 2, event_shape=())
        >>> generator = ebm.Pushforward(dist.Normal(jnp.zeros(()), 1.0), lambda z: 1.0 * z)
        >>> bounds = ebm.generator_bounds(random.key(0), density, generator, num_samples=100)
        >>> print(bounds)
        log Z = 0.919 ± 0.000 in [0.919, inf], effective samples 100 of 100
    """
    settings = core.GeneratorBoundsSettings(
        entropy=entropy,
        num_samples=num_samples,
        num_iterations=num_iterations,
        num_probes=num_probes,
        log_sobolev_constant=log_sobolev_constant,
    )
    check_rng_key(rng_key)
    check_energy_based(distribution, EnergyBased)
    check_one_distribution(distribution)
    learners = as_distribution(generator), StaticPytree.pack(encoder)
    # The checks and warnings of every call, not of the first alone.
    _variational(rng_key, distribution, learners, settings)
    result = _generator_bounds(rng_key, distribution, learners, settings)
    if not_jax_tracer(result.log_weights):
        check_log_weights(distribution, result.log_weights, "draws of the generator")
    return result


def _variational(
    rng_key: Array,
    distribution: EnergyBased,
    learners: tuple[Any, StaticPytree],
    settings: core.GeneratorBoundsSettings,
) -> VariationalGenerator:
    generator, encoder = learners
    options = volume_options(settings)
    return VariationalGenerator.of(rng_key, distribution, generator, encoder.content, **options)


@partial(jax.jit, static_argnames="settings")
def _generator_bounds(
    rng_key: Array,
    distribution: EnergyBased,
    learners: tuple[Any, StaticPytree],
    settings: core.GeneratorBoundsSettings,
) -> core.GeneratorBounds:
    volume_key, latent_key, _ = random.split(rng_key, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Already given.
        variational = _variational(volume_key, distribution, learners, settings)
    latent = variational.draw(latent_key, settings.num_samples)
    draws = variational.compare(distribution, latent)
    return core.summarize_bounds(draws.log_ratio, half_squared_norm(draws.ratio_gradient), settings)
