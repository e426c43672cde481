"""Search for energies inside of other distributions."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pyro_ebm.core.distributions.energy_based import AbstractEnergyBased


@dataclass(frozen=True)
class EnergyFinder:
    """Search for energies inside of a host's distributions.

    Attributes:
        plates: Classes of distributions that are others in plates.
        others: Those with a mask or a transform.
        folded: That whose density at a value is that of two values inside: a mixture.
        parts_of: Function that yields the distributions that one is made of.
    """

    plates: tuple[type, ...]
    others: tuple[type, ...]
    folded: type
    parts_of: Callable[[Any], Iterable[Any]]

    def unwrap(self, fn: Any) -> Any:
        """Find the distribution inside of masks, plates and transforms."""
        while isinstance(fn, self.plates + self.others) and not isinstance(fn, self.folded):
            fn = fn.base_dist
        return fn

    def find_energy(self, fn: Any) -> Any:
        """Find the energy-based distribution inside of masks, plates and transforms, or None."""
        unwrapped = self.unwrap(fn)
        return unwrapped if isinstance(unwrapped, AbstractEnergyBased) else None

    def find_plain_energy(self, fn: Any) -> Any:
        """Find the energy-based distribution inside of plates alone, or None."""
        while isinstance(fn, self.plates):
            fn = fn.base_dist
        return fn if isinstance(fn, AbstractEnergyBased) else None

    def is_unnormalized(self, fn: Any) -> bool:
        """Return whether an energy-based site has no known log-normalizer."""
        energy = self.find_energy(fn)
        return energy is not None and energy.log_normalizer is None

    def find_mixture(self, fn: Any, is_unknown: Callable[[Any], bool] | None = None) -> Any:
        """Find the distribution of a site of whose parts one has an unknown density, or None.

        By default such a part is an energy without known log-normalizer.
        """
        mixture, is_unknown = self.unwrap(fn), is_unknown or self.is_unnormalized
        if isinstance(mixture, AbstractEnergyBased):
            return None
        for part in self.parts_of(mixture):
            if is_unknown(part) or self.find_mixture(part, is_unknown) is not None:
                return mixture
        return None

    def lacks_constant(self, fn: Any) -> bool:
        """Return whether a density lacks a constant: of an energy, a conditional, or a mixture."""
        energy = self.find_energy(fn)
        if energy is None:
            return self.find_mixture(fn, self.lacks_constant) is not None
        return energy._is_unnormalized

    def has_energy(self, fn: Any) -> bool:
        """Return whether an energy is anywhere in a distribution."""
        return self.find_energy(fn) is not None or self.find_mixture(fn) is not None
