"""Variational families of energies from generators, on JAX arrays."""

import warnings
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from numpyro.distributions.transforms import Transform
from numpyro.distributions.util import sum_rightmost

from pyro_ebm.core.objectives import generator as core
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased, without_plates
from pyro_ebm.numpyro.distributions.flows import as_distribution
from pyro_ebm.numpyro.distributions.pushforward import Pushforward, as_pushforward
from pyro_ebm.numpyro.objectives.jacobian import log_det_jtj

Volume = Callable[[Array], tuple[Array, Array]]


class GeneratorDraws(core.GeneratorDraws):
    """A generator's draws, evaluated by an energy."""

    constant = staticmethod(lax.stop_gradient)


class VariationalGenerator(core.VariationalGenerator):
    """A generator fitted to an energy-based distribution."""

    @classmethod
    def of(
        cls,
        rng_key: Array,
        distribution: EnergyBased,
        generator: Any,
        encoder: Any = None,
        *,
        entropy: str = "exact",
        **options: Any,
    ) -> "VariationalGenerator":
        """Check what is attached and choose its volume, with any options of :func:`log_det_jtj`.

        The key is for estimates of the volume: the same latent values always get the same.
        """
        generator = as_distribution(generator)
        core.check_generator(entropy, distribution, generator, encoder)
        source = as_pushforward(generator)
        if entropy == "noise":
            return cls(source, _with_encoder(source, generator.noise_scale, encoder))
        sizes = prod(source.latent.event_shape), prod(source.event_shape)
        if sizes[0] < sizes[1]:
            warnings.warn(core.describe_small_latent(*sizes), stacklevel=2)
        if entropy == "exact" and isinstance(source.generator, Transform):
            return cls(source, _of_transform(source.generator, len(source.event_shape)))
        log_det = partial(log_det_jtj, rng_key, method=entropy, **options)
        return cls(source, core.by_jacobian(source, log_det))

    def draw(self, rng_key: Array, num_samples: int) -> Array:
        """Latent values, shape ``(num_samples, *latent)``."""
        return self.source.latent.sample(rng_key, (num_samples,))

    def compare(self, distribution: EnergyBased, latent: Array) -> GeneratorDraws:
        """Evaluate the energy and its gradient once at the values of latent ones."""
        (value, neg_log_density), pull = jax.vjp(self.value_and_neg_log_density, latent)
        model = without_plates(distribution)
        potential, gradient = value_and_slope(model.potential, lax.stop_gradient(value))
        return GeneratorDraws(value, neg_log_density, potential, gradient, pull)


def value_and_slope(function: Callable[[Array], Array], value: Array) -> tuple[Array, Array]:
    """Evaluate a function of rows and its gradient."""
    result, pull = jax.vjp(function, value)
    return result, pull(jnp.ones_like(result))[0]


def _with_encoder(source: Pushforward, noise_scale: Any, encoder: Callable[[Array], Any]) -> Volume:
    num_dims = prod(source.event_shape)

    def value_and_log_volume(both: Array) -> tuple[Array, Array]:
        value = source.generate(both)
        posterior, (latent, _) = encoder(value), source.latent.split(both)
        core.check_encoder(posterior, latent)
        return value, num_dims * jnp.log(noise_scale) + posterior.log_prob(latent)

    return value_and_log_volume


def _of_transform(transform: Transform, event_dim: int) -> Volume:
    def value_and_log_volume(latent: Array) -> tuple[Array, Array]:
        value = transform(latent)
        log_det = transform.log_abs_det_jacobian(latent, value)
        return value, sum_rightmost(log_det, event_dim - transform.codomain.event_dim)

    return value_and_log_volume
