"""Record of a training run, the same for both hosts."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Fit:
    """Losses and parameters after each step of a training run.

    Attributes:
        losses: Shape ``(num_steps,)``.
        path: Values after each step by name; parameters of a module registered as ``energy`` are
            called ``energy.weight`` and so on. Shape ``(num_steps, *parameter)``.
        state: The host's final state, if it has one.
    """

    losses: np.ndarray
    path: dict[str, np.ndarray]
    state: Any = None

    @property
    def params(self) -> dict[str, np.ndarray]:
        """Final values."""
        return {name: values[-1] for name, values in self.path.items()}

    def mean(self, name: str, num_steps: int | None = None) -> np.ndarray:
        """Mean over the last steps, a third of them by default."""
        return self.path[name][-(num_steps or len(self.losses) // 3) :].mean(0)

    @property
    def loss_fell(self) -> bool:
        """Whether the mean loss of the last quarter is below that of the first."""
        quarter = len(self.losses) // 4
        return bool(self.losses[-quarter:].mean() < self.losses[:quarter].mean())
