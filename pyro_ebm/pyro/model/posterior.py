"""Posterior of a Pyro model's latent variables."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import get_plates
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to

from pyro_ebm.core.model import posterior as core
from pyro_ebm.core.model.posterior import with_sample
from pyro_ebm.core.model.sites import Site, check_sites
from pyro_ebm.pyro.distributions.bound_energy import TrainedByObjective
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.distributions.graph import graph_leaves
from pyro_ebm.pyro.distributions.supports import support_of
from pyro_ebm.pyro.model.sites import (
    find_energy,
    find_mixture,
    lacks_constant,
    log_density,
    map_energy,
    spread_over_value,
)
from pyro_ebm.pyro.samplers.target import initial_values


class Posterior(core.Posterior):
    """Posterior of a Pyro model, in the plates that are open where it is made."""

    _find_energy = staticmethod(find_energy)
    _lacks_constant = staticmethod(lacks_constant)
    _map_energy = staticmethod(map_energy)
    _log_density = staticmethod(log_density)
    _biject_to = staticmethod(biject_to)
    _support_of = staticmethod(support_of)
    _constant = staticmethod(Tensor.detach)

    def __init__(
        self, model: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> None:
        self._model = lambda: model(*args, **(kwargs or {}))
        # Plates around this call are around the model too, which is hidden from outer handlers.
        self._plates_around = get_plates()
        self._subsamples: dict[str, Tensor] = {}
        met = self._run({})
        self._subsamples = {n: s["value"] for n, s in met.items() if site_is_subsample(s)}
        self.sites = {name: site for name, site in met.items() if name not in self._subsamples}
        check_sites(self.sites, Delta, find_mixture)
        unconstrained = self._unconstrained(self.sites)
        self._remove_constants(unconstrained)
        self._arrange(unconstrained)

    def starts(self, num_chains: int) -> Tensor:
        """Independent positions like ``start``, shape ``(num_chains, *plate_shape, size)``."""
        dim = -len(self.layout.plate_shape) - 1
        chains = CondIndepStackFrame("posterior_chains", dim, num_chains, 0)
        return self._position(self._run({}, chains=[chains]))

    def position(self, values: Mapping[str, Tensor]) -> Tensor:
        return self._position(self._run(values))

    def values(self, position: Tensor) -> dict[str, Tensor]:
        with _without_checks():
            sites = self._run(self.layout.unpack(position), unconstrained=True)
        return {name: sites[name]["value"] for name in self.latents}

    def log_joint(self, values: Mapping[str, Tensor]) -> Tensor:
        with _without_checks():
            return self._joint(self._run(values))

    def per_element(self, site: Site, numbers: Tensor) -> Tensor:
        scale = site["scale"] / self._subsampling_factor(site)
        return self.layout.total(scale_and_mask(numbers, scale, site["mask"]))

    def hidden(self, *outermost: Messenger) -> ExitStack:
        """Hide messages from outer handlers, but for ``param``; use this subsample and plates.

        The handlers ``outermost`` come next to the block.
        """
        stack = ExitStack()
        block = poutine.block(expose_types=["param"])
        inner = (_Around(self._plates_around), _Values(self._subsamples))
        for handler in (block, *outermost, *inner):
            stack.enter_context(handler)
        return stack

    def plates(self) -> dict[str, Any]:
        """Plates of the latents by name, with the model's indices, but for those around.

        Enter them to emit the latents.
        """
        around = {frame.name for frame in self._plates_around}
        frames = {f.name: f for site in self.latents.values() for f in site["cond_indep_stack"]}
        with _Values(self._subsamples):
            return {
                name: pyro.plate(name, f.full_size, subsample_size=f.size, dim=f.dim)
                for name, f in frames.items()
                if name not in around
            }

    def _run(
        self,
        values: Mapping[str, Tensor],
        *,
        unconstrained: bool = False,
        chains: Sequence[CondIndepStackFrame] = (),
    ) -> dict[str, Any]:
        """Messages of all sample sites, with these values of latents or initial ones."""
        met = _Values(values, unconstrained=unconstrained)
        with self.hidden(InitialValues()), _Around(chains), met:
            self._model()
        return met.sites

    def _log_densities(self, position: Tensor, *, apart: bool) -> tuple[Tensor, Tensor]:
        unconstrained = self.layout.unpack(position)
        with _without_checks():
            met = self._run(unconstrained, unconstrained=True)
            zeros = position.new_zeros(position.shape[:-1])
            return self._split(met, unconstrained, zeros, apart=apart)

    def _full_size(self, frame: Any) -> int:
        return frame.full_size or frame.size

    def _index(self, frame: Any) -> Tensor:
        # A list, if the user gave one; none for a plate around the model.
        indices = self._subsamples.get(frame.name, range(frame.size))
        return torch.as_tensor(indices, device=self.start.device)

    def _remove_constants(self, unconstrained: Mapping[str, Tensor]) -> None:
        """Remove observed sites outside of the latents' plates that depend on no latent."""
        outside = self._outside_of_plates()
        if not outside:
            return
        with torch.enable_grad(), _without_checks():
            latents = {name: x.clone().requires_grad_() for name, x in unconstrained.items()}
            met = self._run(latents, unconstrained=True)
            for name in outside:
                leaves = {id(leaf) for leaf in graph_leaves(log_density(met[name]))}
                if leaves.isdisjoint(map(id, latents.values())):
                    del self.sites[name]


@contextmanager
def _without_checks() -> Iterator[None]:
    """Evaluate densities as chains do: at any values, training nothing."""
    with TrainedByObjective(), pyro.validation_enabled(is_validate=False):
        yield


class _Values(Messenger):
    """Handler that sets the values of sites, and keeps the messages of all sample sites."""

    def __init__(self, values: Mapping[str, Tensor], *, unconstrained: bool = False) -> None:
        super().__init__()
        self.values = values
        self.unconstrained = unconstrained
        self.sites: dict[str, Any] = {}

    def _pyro_sample(self, msg: Any) -> None:
        value = self.values.get(msg["name"])
        if value is not None:
            msg["value"] = biject_to(support_of(msg["fn"]))(value) if self.unconstrained else value

    def _pyro_post_sample(self, msg: Any) -> None:
        self.sites[msg["name"]] = {**msg, "fn": spread_over_value(msg)}


class InitialValues(Messenger):
    """Handler that sets energy-based sites to initial values of chains in place of draws."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is None and find_energy(msg["fn"]) is not None:
            msg["value"] = with_sample(msg["fn"], _draw).sample()


def _draw(energy: EnergyBased, sample_shape: Any = ()) -> Tensor:
    return initial_values(energy, sample_shape)


class _Around(Messenger):
    """Plates that are open already: Pyro would not open them again inside of a block."""

    def __init__(self, frames: Sequence[CondIndepStackFrame]) -> None:
        super().__init__()
        self.frames = frames

    def _pyro_sample(self, msg: Any) -> None:
        # Scales belong to the plate itself.
        frames = tuple(frame._replace(full_size=frame.size) for frame in self.frames)
        msg["cond_indep_stack"] = frames + msg["cond_indep_stack"]
        BroadcastMessenger._pyro_sample(msg)
