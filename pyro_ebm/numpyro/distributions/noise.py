"""Noise as a part of a latent variable, so that chains can walk on both."""

from collections.abc import Sequence
from math import prod
from typing import Any

import jax.numpy as jnp
from jax import Array, random
from numpyro.distributions import Distribution, Normal, constraints

from pyro_ebm.numpyro.distributions.bound_energy import Packed
from pyro_ebm.numpyro.samplers.target import is_unconstrained

__all__ = ["WithNoise"]


class WithNoise(Distribution):
    """A latent variable and standard normal noise, end to end in one vector."""

    arg_constraints = {}
    pytree_data_fields = ("_latent",)
    pytree_aux_fields = ("noise_shape", "size")
    support = constraints.real_vector

    def __init__(self, latent: Any, noise_shape: tuple[int, ...]) -> None:
        if not is_unconstrained(latent):
            raise ValueError(
                "Expected a latent over all real numbers where a Pushforward has noise, got "
                f"{latent}."
            )
        self._latent = Packed.pack(latent)
        self.noise_shape = noise_shape
        self.size = prod(latent.event_shape)
        shape = (self.size + prod(noise_shape),)
        super().__init__(latent.batch_shape, shape, validate_args=False)

    @property
    def latent(self) -> Any:
        """The distribution of the latent variable."""
        return self._latent.content

    def expand(self, batch_shape: Sequence[int]) -> "WithNoise":
        """The same with a larger batch shape."""
        return WithNoise(self.latent.expand(tuple(batch_shape)), self.noise_shape)

    def split(self, both: Array) -> tuple[Array, Array]:
        """Latent values and noise, each in its own shape."""
        latent, noise = jnp.split(both, [self.size], axis=-1)
        shape = both.shape[:-1]
        return (
            latent.reshape((*shape, *self.latent.event_shape)),
            noise.reshape((*shape, *self.noise_shape)),
        )

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of both."""
        latent_key, noise_key = random.split(key)
        shape = (*sample_shape, *self.batch_shape)
        latent = self.latent.sample(latent_key, sample_shape).reshape((*shape, self.size))
        noise = random.normal(noise_key, (*shape, prod(self.noise_shape)), latent.dtype)
        return jnp.concatenate([latent, noise], axis=-1)

    def log_prob(self, value: Array) -> Array:
        """Log-density of both together."""
        latent, _ = self.split(value)
        noise = Normal(validate_args=False).log_prob(value[..., self.size :])
        return self.latent.log_prob(latent) + noise.sum(-1)
