"""Persistent chains in Pyro's parameter store, or in a module."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_ebm.core.infer import persistent_chains as settings
from pyro_ebm.core.objectives.negatives import lowest, with_acceptance
from pyro_ebm.core.samplers.run import ShortRun
from pyro_ebm.pyro.distributions.energy_based import EnergyBased, without_plates
from pyro_ebm.pyro.samplers.mala import MALA
from pyro_ebm.pyro.samplers.run import move_levels, move_values
from pyro_ebm.pyro.samplers.target import initial_values


@dataclass(frozen=True)
class PersistentChains(settings.PersistentChains):
    """Markov chains that follow an energy during training, for objectives that need draws.

    Their values are in the parameter store under the name ``"z$chains"``, where no optimizer moves
    them; in the module form, ``EnergyELBO(...)(model, guide)``, they are a part of its
    ``state_dict()``, and each process has its own. ``save_checkpoint`` keeps them.

    Example:
        >>> import pyro_ebm.pyro as ebm
        >>> chains = ebm.PersistentChains(64, (2,), buffer_size=1000, restart_probability=0.05)
        >>> def guide(x):
        ...     ebm.attach("x", chains=chains)
    """

    _: KW_ONLY
    sampler: Any = MALA()

    def advance(self, distribution: EnergyBased, values: Tensor) -> tuple[Tensor, ShortRun]:
        """Move some of all chains, ``values``, on a distribution without batch dimensions.

        Returns all chains thereafter, and those that moved.
        """
        device = values.device
        taken = torch.randperm(len(values), device=device)[: self.num_chains]
        fresh = initial_values(distribution, (self.num_chains, *self.levels))
        restarts = torch.rand(self.num_chains, device=device) < self.restart_probability
        diverged = ~torch.isfinite(values[taken]).reshape(self.num_chains, -1).all(dim=1)
        again = (restarts | diverged).reshape(-1, *(1 for _ in self.shape[1:]))
        run = self.sampler, distribution, torch.where(again, fresh, values[taken]), self.num_steps
        moved = move_levels(*run) if self.levels else move_values(*run)
        drawn = replace(moved, samples=self.draws(moved.samples))
        return values.index_copy(0, taken, moved.samples), with_acceptance(self.sampler, drawn)


class ModuleChains(nn.Module):
    """Values of persistent chains in the state of a module, by name.

    They are no buffers, which data-parallel training would broadcast from one process to all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Tensor] = {}

    def _apply(self, fn: Any, recurse: bool = True) -> "ModuleChains":  # noqa: FBT001, FBT002
        self.values = {name: fn(value) for name, value in self.values.items()}
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:  # noqa: FBT001
        destination.update({prefix + name: value for name, value in self.values.items()})

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        names = [name for name in state_dict if name.startswith(prefix)]
        self.values = {name.removeprefix(prefix): state_dict[name].clone() for name in names}


class ChainStore:
    """Persistent chains during one step: each moves once, for any number of particles.

    Args:
        keeps: Whether to write back chains that have moved.
        values: Where they are kept. Default: in the parameter store.
    """

    def __init__(self, *, keeps: bool, values: dict[str, Tensor] | None = None) -> None:
        self.keeps = keeps
        self.kept: Any = pyro.get_param_store() if values is None else values
        self.moved: dict[str, ShortRun] = {}

    def resolve(
        self, site: str, attached: Mapping[str, Any], distribution: EnergyBased
    ) -> tuple[dict[str, Any], Any]:
        """Replace chains among the attached parts of a site; return their acceptance too."""
        runs = {
            key: self._values(f"{site}${key}", part, distribution)
            for key, part in attached.items()
            if isinstance(part, PersistentChains)
        }
        rates = [run.acceptance_rate for run in runs.values()]
        return {**attached, **{k: run.samples for k, run in runs.items()}}, lowest(rates)

    def _values(self, name: str, chains: PersistentChains, distribution: EnergyBased) -> ShortRun:
        if name not in self.moved:
            with torch.no_grad():
                values = self.kept[name] if name in self.kept else None
                chains.check(name, values, distribution)
                distribution = without_plates(distribution)
                if values is None:
                    values = initial_values(distribution, (chains.shape[0], *chains.levels))
                values, self.moved[name] = chains.advance(distribution, values)
                if self.keeps:
                    # In place: the store holds on to every tensor it was ever given.
                    self.kept.setdefault(name, values).copy_(values)
        return self.moved[name]
