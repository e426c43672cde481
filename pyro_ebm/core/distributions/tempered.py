"""The path of densities from a base to an energy-based distribution."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.distributions.energy_based import scaled_energy


@dataclass(frozen=True)
class TemperedTarget:
    r"""Path :math:`e^{-\beta E} p_0` from the base of a distribution to it.

    Without a base it starts at a standard normal in unconstrained space.
    """

    distribution: Any

    @cached_property
    def target(self) -> Any:
        """Target of the distribution: the bijection to its support, or its columns."""
        return self.distribution._target_class.of_any(self.distribution)

    def start(self, position: Any) -> Any:
        """Potential of the base over unconstrained space, shape ``(*sample, *batch)``."""
        if self.distribution.base is None:
            return _standard_normal_potential(position, self._num_event_dims)
        value = self.target.value(position)
        return -self.distribution._base_log_prob(value) - self._log_volume(position, value)

    def tilt(self, position: Any) -> Any:
        """Potential of the distribution minus that of the base."""
        if self.distribution.base is None:
            return self.target.potential(position) - self.start(position)
        return scaled_energy(self.distribution, self.target.value(position))

    def at(self, inverse_temperature: Any) -> Callable[[Any], Any]:
        """Potential over unconstrained space; without a base, relative to the flat measure."""
        distribution, target = self.distribution, self.target

        def potential(position: Any) -> Any:
            value = target.value(position)
            result = tempered(inverse_temperature, scaled_energy(distribution, value))
            if distribution.base is not None:
                result = result - distribution._base_log_prob(value)
            return result - self._log_volume(position, value)

        return potential

    @property
    def _num_event_dims(self) -> int:
        return len(self.target.bijection.inverse_shape(tuple(self.distribution.event_shape)))

    def _log_volume(self, position: Any, value: Any) -> Any:
        return 0.0 if self.target.is_unconstrained else self.target.log_volume(position, value)


def tempered(inverse_temperature: Any, x: Any) -> Any:
    """Multiply by an inverse temperature; infinite energies do not count at zero."""
    xp = array_namespace(x)
    return xp.where(inverse_temperature > 0, inverse_temperature * x, xp.zeros_like(x))


def _standard_normal_potential(position: Any, num_event_dims: int) -> Any:
    xp = array_namespace(position)
    potentials = 0.5 * (position**2 + math.log(2.0 * math.pi))
    axes = tuple(range(-num_event_dims, 0))
    return xp.sum(potentials, axis=axes) if axes else potentials
