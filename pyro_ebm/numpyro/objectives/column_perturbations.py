"""Noise on columns, by random keys."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array, random

from pyro_ebm import column_perturbations as core
from pyro_ebm.core.objectives.perturbations import check_continuous


def kernel_on(perturbation: Any, columns: Any) -> Any:
    if not isinstance(perturbation, core.ColumnPerturbation):
        return check_continuous(perturbation, columns)
    core.check_has_columns(perturbation, columns)
    if isinstance(perturbation, core.Masking | core.MaskOne):
        return _Masks(perturbation, jnp.asarray(core.check_codes(perturbation, columns)))
    return _Walks(*map(jnp.asarray, core.walks(perturbation, columns)))


@dataclass(frozen=True)
class _Walks:
    """Tables of random walks, and standard deviations of numbers."""

    tables: Array
    deviations: Array

    def forward(self, rng_key: Array, x: Array) -> Array:
        code_key, number_key = random.split(rng_key)
        flat = x.reshape((-1, len(self.tables)))
        uniform = random.uniform(code_key, flat.shape, self.tables.dtype)
        rows = self.tables[jnp.arange(len(self.tables)), flat.astype(int)]
        moved = (uniform[..., None] > rows[..., :-1]).sum(-1).astype(x.dtype)
        if jnp.issubdtype(x.dtype, jnp.floating):
            noise = random.normal(number_key, flat.shape, x.dtype)
            noisy = flat + self.deviations.astype(x.dtype) * noise
            moved = jnp.where(self.deviations > 0, noisy, moved)
        return moved.reshape(x.shape)

    def backward(self, rng_key: Array, y: Array, num_samples: int) -> Array:
        return self.forward(rng_key, jnp.broadcast_to(y, (num_samples, *y.shape)))


@dataclass(frozen=True)
class _Masks:
    """Masks, with the sizes of what they hide."""

    perturbation: core.Masking | core.MaskOne
    sizes: Array

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
