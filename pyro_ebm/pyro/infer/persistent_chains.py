"""Persistent chains in Pyro's parameter store."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_ebm.core.infer import persistent_chains as settings
from pyro_ebm.pyro.distributions.energy_based import EnergyBased, without_plates
from pyro_ebm.pyro.samplers.langevin import Langevin
from pyro_ebm.pyro.samplers.run import move_values
from pyro_ebm.pyro.samplers.target import initial_values


@dataclass(frozen=True)
class PersistentChains(settings.PersistentChains):
    """Markov chains that follow an energy during training, for objectives that need draws.

    Their values are in the parameter store under the name ``"z$chains"``, where no optimizer moves
    them: ``pyro.get_param_store().save(...)`` saves them with the parameters.

    Example:
        >>> import pyro_ebm.pyro as ebm
        >>> chains = ebm.PersistentChains(64, (2,), buffer_size=1000, restart_probability=0.05)
        >>> def guide(x):
        ...     ebm.attach("x", chains=chains)
    """

    _: KW_ONLY
    sampler: Any = Langevin(0.05)

    def advance(self, distribution: EnergyBased, values: Tensor) -> tuple[Tensor, Tensor]:
        """Move some of all chains, ``values``, on a distribution without batch dimensions.

        Returns all chains thereafter, and those that moved.
        """
        device = values.device
        taken = torch.randperm(len(values), device=device)[: self.num_chains]
        fresh = initial_values(distribution, (self.num_chains,))
        restarts = torch.rand(self.num_chains, device=device) < self.restart_probability
        diverged = ~torch.isfinite(values[taken]).reshape(self.num_chains, -1).all(dim=1)
        again = (restarts | diverged).reshape(-1, *(1 for _ in self.event_shape))
        start = torch.where(again, fresh, values[taken])
        moved = move_values(self.sampler, distribution, start, self.num_steps)
        return values.index_copy(0, taken, moved), moved


class ChainStore:
    """Persistent chains during one step: each moves once, for any number of particles.

    Args:
        keeps: Whether to write moved chains back to the parameter store.
    """

    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps
        self.moved: dict[str, Tensor] = {}

    def resolve(
        self, site: str, attached: Mapping[str, Any], distribution: EnergyBased
    ) -> dict[str, Any]:
        """Replace chains among the attached parts of a site by their moved values."""
        return {
            key: self._values(f"{site}${key}", part, distribution)
            if isinstance(part, PersistentChains)
            else part
            for key, part in attached.items()
        }

    def _values(self, name: str, chains: PersistentChains, distribution: EnergyBased) -> Tensor:
        if name not in self.moved:
            store = pyro.get_param_store()
            with torch.no_grad():
                values = store[name] if name in store else None
                chains.check(name, values, distribution)
                distribution = without_plates(distribution)
                if values is None:
                    values = initial_values(distribution, chains.shape[:1])
                values, self.moved[name] = chains.advance(distribution, values)
                if self.keeps:
                    # In place: the store holds on to every tensor it was ever given.
                    store.setdefault(name, values).copy_(values)
        return self.moved[name]
