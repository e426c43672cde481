"""Record of one step of an objective, the same for both hosts."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Step:
    """Losses of all values, gradients of their mean, and metrics.

    Attributes:
        loss: Shape ``(*batch,)``.
        gradients: By name of the parameter.
        by_value: Gradient in the values.
        metrics: Numbers by name.
    """

    loss: np.ndarray
    gradients: dict[str, np.ndarray]
    by_value: np.ndarray
    metrics: dict[str, float] = field(default_factory=dict)

    def __sub__(self, other):
        gradients = {name: self.gradients[name] - other.gradients[name] for name in self.gradients}
        return Step(self.loss - other.loss, gradients, self.by_value - other.by_value)


def assert_mean(blocks, expected, largest_error):
    """Assert that independent estimates, shape ``(N, ...)``, are right on average."""
    error = blocks.std(0) / len(blocks) ** 0.5
    assert np.all(error < largest_error)
    np.testing.assert_array_less(abs(blocks.mean(0) - expected), 4 * error)
