"""The path from a base to an energy-based distribution."""

from pyro_ebm.core.distributions import tempered as core
from pyro_ebm.pyro.samplers.target import Target


class TemperedTarget(core.TemperedTarget):
    """Tempered densities of a Pyro distribution."""

    target_class = Target
