"""Figures of health: what objectives tell of a training step beside their loss."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pyro_ebm.core.checks import check_positive

__all__ = ["ADVICE", "TrustedRange", "record_figures", "recorded_figures"]

ADVICE = (
    "If training diverged, try a smaller learning rate, more or smaller steps of the sampler "
    "that draws negatives, or a penalty on energies."
)

_figures: ContextVar[dict[str, Callable[[], Any]] | None] = ContextVar("figures", default=None)


def record_figures(**figures: Callable[[], Any]) -> None:
    """Tell whoever watches an objective's ``loss`` some figures of it.

    Args:
        **figures: Functions that give a scalar array, called only if someone reads it.
            ``energy_scale``, the standard deviation of the energies that a loss compares, is one
            that :class:`EnergyELBO` keeps within a range.
    """
    watched = _figures.get()
    if watched is not None:
        watched.update(figures)


@contextmanager
def recorded_figures() -> Iterator[dict[str, Callable[[], Any]]]:
    """The figures that are recorded meanwhile, by name."""
    figures: dict[str, Callable[[], Any]] = {}
    token = _figures.set(figures)
    try:
        yield figures
    finally:
        _figures.reset(token)


@dataclass(frozen=True)
class TrustedRange:
    """Range that training must not leave.

    Args:
        max_loss: Largest magnitude of an objective's loss.
        max_energy_scale: Largest standard deviation of the energies that it compares.

    Raises:
        ValueError: If a number is not positive.
    """

    max_loss: float
    max_energy_scale: float

    def __post_init__(self) -> None:
        check_positive("max_loss", self.max_loss)
        check_positive("max_energy_scale", self.max_energy_scale)

    def contains(self, loss: Any, energy_scale: Any) -> Any:
        """Whether a loss and a standard deviation are in the range; not-a-number never is."""
        return (loss <= self.max_loss) & (energy_scale <= self.max_energy_scale)

    def check(self, site: str, loss: float, energy_scale: float) -> None:
        """Raise an error that names the site, unless they are in the range."""
        if self.contains(loss, energy_scale):
            return
        if not (math.isfinite(loss) and math.isfinite(energy_scale)):
            problem = f"finite energies at site {site!r}, got NaN or infinity"
        else:
            problem = (
                f"a loss of at most {self.max_loss:g} and energies that differ by at most "
                f"{self.max_energy_scale:g} (standard deviation) at site {site!r}, got "
                f"{loss:.3g} and {energy_scale:.3g}"
            )
        raise ValueError(f"Expected {problem}. {ADVICE}")
