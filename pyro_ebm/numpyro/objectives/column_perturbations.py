"""Noise on columns, by random keys."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, random

from pyro_ebm import column_perturbations as core


def kernel_on(perturbation: Any, columns: Any) -> Any:
    return core.kernel_on(perturbation, columns, _Walks, _Masks)


@dataclass(frozen=True)
class _Walks:
    """Tables of random walks, and standard deviations of numbers."""

    tables: np.ndarray
    deviations: np.ndarray

    def forward(self, rng_key: Array, x: Array) -> Array:
        code_key, number_key = random.split(rng_key)
        flat = x.reshape((-1, len(self.tables)))
        tables, deviations = map(jnp.asarray, (self.tables, self.deviations))
        uniform = random.uniform(code_key, flat.shape, tables.dtype)
        rows = tables[jnp.arange(len(tables)), flat.astype(int)]
        moved = (uniform[..., None] > rows[..., :-1]).sum(-1).astype(x.dtype)
        if jnp.issubdtype(x.dtype, jnp.floating):
            noise = random.normal(number_key, flat.shape, x.dtype)
            noisy = flat + deviations.astype(x.dtype) * noise
            moved = jnp.where(deviations > 0, noisy, moved)
        return moved.reshape(x.shape)

    def backward(self, rng_key: Array, y: Array, num_samples: int) -> Array:
        return self.forward(rng_key, jnp.broadcast_to(y, (num_samples, *y.shape)))


@dataclass(frozen=True)
class _Masks:
    """Masks, with the sizes of what they hide."""

    perturbation: core.Masking | core.MaskOne
    sizes: np.ndarray

    def forward(self, rng_key: Array, x: Array) -> tuple[Array, Array]:
        flat = x.reshape((-1, len(self.sizes)))
        if isinstance(self.perturbation, core.Masking):
            masked = random.uniform(rng_key, flat.shape) < self.perturbation.share
        else:
            chosen = random.randint(rng_key, (len(flat), 1), 0, len(self.sizes))
            masked = jnp.arange(len(self.sizes)) == chosen
        return x, masked.reshape(x.shape)

    def backward(self, rng_key: Array, y: tuple[Array, Array], num_samples: int) -> Array:
        x, masked = y
        shape = (num_samples, x.size // len(self.sizes), len(self.sizes))
        codes = jnp.floor(random.uniform(rng_key, shape) * self.sizes).astype(x.dtype)
        return jnp.where(masked, codes.reshape((num_samples, *x.shape)), x)
