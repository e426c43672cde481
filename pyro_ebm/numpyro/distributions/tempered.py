"""The path from a base to an energy-based distribution."""

from dataclasses import dataclass

from jax.tree_util import register_dataclass

from pyro_ebm.core.distributions import tempered as core
from pyro_ebm.numpyro.samplers.target import Target


@register_dataclass
@dataclass(frozen=True)
class TemperedTarget(core.TemperedTarget):
    """Tempered densities of a NumPyro distribution; a pytree."""

    target_class = Target
