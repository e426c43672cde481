"""Points of the plane as vectors of bits or digits, and back."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.datasets.toys import Toy, toy

Array = np.ndarray

# Draws that show how far a toy reaches, and their seed.
_NUM_DRAWS, _SEED = 5000, 1


@dataclass(frozen=True)
class Codes:
    r"""A toy of the plane, each coordinate written as digits.

    With :math:`f` one more than the largest coordinate of 5,000 draws, bits are a sign and the Gray
    code of :math:`\lfloor |x| s \rfloor` with :math:`s = 2^{D - 1} / (f + 1)`; digits of another
    base :math:`b` those of :math:`\lfloor (x + f) s / 2 \rfloor` with :math:`s = b^D / (f + 1)`,
    the highest first.

    Args:
        toy: The toy.
        base: Number :math:`b` of values of a digit.
        num_digits: Digits :math:`D` of each coordinate.

    References:
        | Learning discrete energy-based models via auxiliary-variable local exploration
          (Dai et al., 2020), https://arxiv.org/abs/2011.05363
        | Training Discrete Energy-Based Models with Energy Discrepancy (Schroder et al., 2023),
          https://arxiv.org/abs/2307.07595
    """

    toy: Toy
    base: int = 2
    num_digits: int = 16

    def __post_init__(self) -> None:
        check_positive_integer("base", self.base, minimum=2)
        check_positive_integer("num_digits", self.num_digits, minimum=2)
        if self.base**self.num_digits > 2**52:
            raise ValueError(
                f"Expected codes that a number holds, got {self.num_digits} digits of base "
                f"{self.base}."
            )

    @cached_property
    def reach(self) -> float:
        """One more than the largest coordinate of some draws."""
        return float(abs(self.toy.sample(_NUM_DRAWS, _SEED)).max()) + 1.0

    def sample(self, num_samples: int, seed: int = 0) -> Array:
        """Draw codes, integers of shape `(num_samples, dimension * num_digits)`."""
        return self.encode(self.toy.sample(num_samples, seed))

    def encode(self, x: Array) -> Array:
        """Write points, shape `(n, dimension)`, as digits; those out of reach count as on its edge.

        Example:
            >>> int(codes("pinwheel").encode(np.zeros((1, 2))).sum())
            0
        """
        x = np.asarray(x, dtype=np.float64)
        if self.base == 2:  # noqa: PLR2004
            whole = self._whole(abs(x) * 2 ** (self.num_digits - 1), self.num_digits - 1)
            digits = self._digits(whole ^ (whole >> 1), self.num_digits - 1)
            digits = np.concatenate([(x < 0)[..., None], digits], axis=-1).astype(int)
        else:
            shifted = 0.5 * (x + self.reach) * self.base**self.num_digits
            digits = self._digits(self._whole(shifted, self.num_digits), self.num_digits)
        return digits.reshape(len(x), -1)

    def decode(self, digits: Array) -> Array:
        """Return the middle of the cell of each code, shape `(n, dimension)`."""
        digits = np.asarray(digits).astype(int).reshape(len(digits), -1, self.num_digits)
        if self.base == 2:  # noqa: PLR2004
            bits = np.bitwise_xor.accumulate(digits[..., 1:], axis=-1)
            size = (self._number(bits) + 0.5) * (self.reach + 1) / 2 ** (self.num_digits - 1)
            return np.where(digits[..., 0], -size, size)
        cell = (self.reach + 1) / self.base**self.num_digits
        return 2.0 * (self._number(digits) + 0.5) * cell - self.reach

    def _whole(self, x: Array, num_digits: int) -> Array:
        whole = np.floor(x / (self.reach + 1)).astype(np.int64)
        return whole.clip(0, self.base**num_digits - 1)

    def _digits(self, whole: Array, num_digits: int) -> Array:
        powers = self.base ** np.arange(num_digits)[::-1]
        return (whole[..., None] // powers) % self.base

    def _number(self, digits: Array) -> Array:
        return digits @ self.base ** np.arange(digits.shape[-1])[::-1]


def codes(name: str, base: int = 2, num_digits: int = 16) -> Codes:
    """Return the toy of a name in `TOYS` as bits or digits.

    Example:
        >>> codes("pinwheel").sample(10).shape
        (10, 32)
        >>> codes("pinwheel", base=5, num_digits=8).sample(10).shape
        (10, 16)
    """
    return Codes(toy(name), base, num_digits)
