"""Noise kernels: from a value to noise, and back from noise to values it may have come from."""

import math

from jax import Array, random

from pyro_ebm.core.checks import check_positive

__all__ = ["GaussianPerturbation"]


class GaussianPerturbation:
    r"""Gaussian noise forward, and the same kernel back.

    .. math:: y = x + \sqrt t\, \xi, \qquad x_j = y + \sqrt t\, \xi_j

    Args:
        variance: :math:`t`, the *variance* of one hop; :math:`x_j - x` has variance :math:`2t`.

    Raises:
        ValueError: If the variance is not a positive number.
    """

    def __init__(self, variance: float) -> None:
        self.variance = check_positive("variance", variance)

    def __repr__(self) -> str:
        return f"GaussianPerturbation(variance={self.variance})"

    def forward(self, rng_key: Array, x: Array) -> Array:
        """Noise every value once; shape of ``x``."""
        return x + math.sqrt(self.variance) * random.normal(rng_key, x.shape, x.dtype)

    def backward(self, rng_key: Array, y: Array, num_negatives: int) -> Array:
        """Draw values that may have led to ``y``; shape ``(num_negatives, *y.shape)``."""
        noise = random.normal(rng_key, (num_negatives, *y.shape), y.dtype)
        return y + math.sqrt(self.variance) * noise
