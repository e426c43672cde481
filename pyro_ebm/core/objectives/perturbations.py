"""Noise kernels: from a value to noise, and back to values that it may have come from."""

import math
from dataclasses import dataclass
from typing import Any

from pyro_ebm.core.checks import check_instance, check_positive
from pyro_ebm.core.objectives.settings import convert_fields


def check_perturbation(name: str, value: Any) -> Any:
    """Return noise; raise ``TypeError`` unless it is an instance with ``forward``, ``backward``."""
    check_instance(name, value)
    if isinstance(value, ColumnPerturbation):
        return value
    if not all(callable(getattr(value, method, None)) for method in ("forward", "backward")):
        raise TypeError(
            f"Expected `{name}` to have forward and backward, as GaussianPerturbation has, got "
            f"{type(value).__name__}."
        )
    return value


class ColumnPerturbation:
    """Noise on an event with columns of codes; base of all such."""


@dataclass(frozen=True)
class GaussianPerturbation:
    r"""Gaussian noise forward, and the same kernel back.

    .. math:: y = x + \sqrt t\, \xi, \qquad x_j = y + \sqrt t\, \xi_j

    A kernel of your own has the same two methods, in NumPyro with a random key first.

    Args:
        variance: :math:`t`, the *variance* of one hop; :math:`x_j - x` has variance :math:`2t`.

    Raises:
        ValueError: If the variance is not a positive number.
    """

    variance: float

    def __post_init__(self) -> None:
        convert_fields(self, variance=check_positive)

    def forward(self, *args: Any) -> Any:
        """Perturb every value of ``(x,)`` once."""
        raise NotImplementedError

    def backward(self, *args: Any) -> Any:
        """Draw from ``(y, num_samples)`` copies of shape ``(num_samples, *y.shape)``."""
        raise NotImplementedError

    @property
    def standard_deviation(self) -> float:
        r""":math:`\sqrt t`."""
        return math.sqrt(self.variance)


def check_continuous(perturbation: Any, columns: Any) -> Any:
    """Return noise on numbers or of a user's own; raise if Gaussian noise meets codes."""
    if columns is not None and isinstance(perturbation, GaussianPerturbation):
        raise ValueError(
            f"Expected noise on codes where the support is discrete, such as Uniform(1.0), got "
            f"{perturbation}."
        )
    return perturbation
