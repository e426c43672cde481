"""Noise kernels on JAX arrays."""

from jax import Array, random

from pyro_ebm.core.objectives import perturbations as core


class GaussianPerturbation(core.GaussianPerturbation):
    """Gaussian noise of the dtype of what it perturbs.

    The base class documents the settings, and the two methods of any kernel.

    Example:
        >>> from jax import numpy as jnp, random
        >>> noise = GaussianPerturbation(1e-8)
        >>> noise.forward(random.key(0), jnp.ones(3)).round(2).tolist()
        [1.0, 1.0, 1.0]
    """

    def forward(self, rng_key: Array, x: Array) -> Array:
        return x + self.standard_deviation * random.normal(rng_key, x.shape, x.dtype)

    def backward(self, rng_key: Array, y: Array, num_samples: int) -> Array:
        noise = random.normal(rng_key, (num_samples, *y.shape), y.dtype)
        return y + self.standard_deviation * noise
