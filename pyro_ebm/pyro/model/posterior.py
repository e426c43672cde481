"""What samplers walk on to draw the latent variables of a model."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from math import prod
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

from pyro_ebm.core.model.layout import Packing
from pyro_ebm.pyro.distributions.bound_energy import graph_leaves
from pyro_ebm.pyro.model.densities import (
    Site,
    log_density,
    log_volume,
    plates_of,
    scoring,
    shared_plates,
    tilt,
    unconstrained_value,
)
from pyro_ebm.pyro.samplers.target import starting_values

__all__ = ["Posterior"]


class Posterior:
    """The latent variables of a model, given its arguments and one choice of subsamples.

    A *position* holds all of them, unconstrained: shape ``(*chains, *plate_shape, size)``. Where
    every latent lies in the same plates, and every observation that depends on one too, each
    element of these plates is a target of its own, with a potential of its own. A latent outside
    of a plate ties the elements of that plate together: they are one target then. Subsampling
    does not weigh the densities: the elements that were drawn are known no better for it.

    Parameters are constants, those of energies too. Densities of energy-based sites leave out
    their log-normalizers, on which the posterior does not depend.

    Args:
        model: A Pyro model, vectorised over its plates.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Attributes:
        sites: Messages of the sites that matter by name, as the model sent them: latent ones,
            and observed ones that may depend on them.
        plate_dims: Dimensions of the plates whose elements are independent.
        packing: Where each latent lies in a position.
        start: Position of draws from the priors, and of starting values of energy priors.

    Raises:
        ValueError: If there is no latent; if one is discrete or a point mass; or if a plate is
            subsampled that some of these sites lie outside of.
    """

    def __init__(
        self, model: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> None:
        self._model = lambda: model(*args, **(kwargs or {}))
        # Plates around this call are around the model too, which nobody outside shall see run.
        self._plates_around = get_plates()
        self._subsamples: dict[str, Tensor] = {}
        met = self._run({})
        self._subsamples = {n: s["value"] for n, s in met.items() if site_is_subsample(s)}
        self.sites = {name: site for name, site in met.items() if name not in self._subsamples}
        _check_latents(self.latents)
        unconstrained = {name: unconstrained_value(site) for name, site in self.latents.items()}
        self._leave_out_constants(unconstrained)
        self.plate_dims = sorted(dim for _, dim in shared_plates(self.sites.values()))
        self.packing = Packing.sharing(
            plate_dims=self.plate_dims,
            depth=max(len(site["fn"].batch_shape) for site in self.sites.values()),
            batch_shapes={n: tuple(site["fn"].batch_shape) for n, site in self.latents.items()},
            shapes={name: tuple(value.shape) for name, value in unconstrained.items()},
        )
        self.start = self.packing.pack(unconstrained)
        _check_subsampling(self.sites)

    @property
    def latents(self) -> dict[str, Site]:
        """Messages of the latent sites."""
        return {name: site for name, site in self.sites.items() if not site["is_observed"]}

    def starts(self, num_chains: int) -> Tensor:
        """Independent positions such as ``start``, shape ``(num_chains, *plate_shape, size)``."""
        dim = -len(self.packing.plate_shape) - 1
        chains = CondIndepStackFrame("posterior_chains", dim, num_chains, 0)
        return self._position(self._run({}, chains=[chains]))

    def position(self, values: Mapping[str, Tensor]) -> Tensor:
        """Position of given values of the latents, of the shapes that the model has."""
        return self._position(self._run(values))

    def values(self, position: Tensor) -> dict[str, Tensor]:
        """Values of the latents at a position without chains, of the shapes that the model has."""
        with scoring():
            sites = self._run(self.packing.unpack(position), unconstrained=True)
        return {name: sites[name]["value"] for name in self.latents}

    def potential(self, position: Tensor) -> Tensor:
        """Minus the log-density of latents and observations, over unconstrained space.

        Args:
            position: Shape ``(*chains, *plate_shape, size)``.

        Returns:
            Shape ``(*chains, *plate_shape)``.
        """
        prior, rest = self._log_densities(position, apart=False)
        return -(prior + rest)

    def log_densities(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Log-density of the latents before anything tilts it, and of what tilts it.

        The first is that of priors, and of bases of energy priors, over unconstrained space; it
        is normalized. The second is that of observations, minus the energies of energy priors.
        Their sum is minus the :meth:`potential`.
        """
        return self._log_densities(position, apart=True)

    def log_joint(self, values: Mapping[str, Tensor]) -> Tensor:
        """Log-density of latents and observations at values of the latents, as they are.

        Args:
            values: Of the shapes that the model has, or with chains and padding in front.

        Returns:
            Shape that broadcasts with ``(*chains, *plate_shape)``.
        """
        with scoring():
            met = self._run(values)
            densities = [self.per_element(met[n], log_density(met[n])) for n in self.sites]
        return torch.stack(torch.broadcast_tensors(*densities)).sum(0)

    def per_element(self, site: Site, numbers: Tensor) -> Tensor:
        """Sum, in each plate element, of a number for each batch element of a site.

        They are weighed and masked as Pyro does with log-densities, but for subsampling.
        """
        factor = prod((f.full_size or f.size) / f.size for f in site["cond_indep_stack"])
        return self.packing.total(scale_and_mask(numbers, site["scale"] / factor, site["mask"]))

    def hidden(self) -> ExitStack:
        """Context in which nobody outside sees what runs, except for its parameters.

        Subsamples, and plates around, are those of the posterior.
        """
        stack = ExitStack()
        outside = poutine.block(expose_types=["param"])
        for handler in (outside, _Around(self._plates_around), _Fixed(self._subsamples)):
            stack.enter_context(handler)
        return stack

    def plates(self) -> dict[str, Any]:
        """The plates of the latents, by name, with the indices that they had in the model.

        To be entered where the latents are emitted; plates around this posterior are left out.
        """
        around = {frame.name for frame in self._plates_around}
        frames = {f.name: f for site in self.latents.values() for f in site["cond_indep_stack"]}
        with _Fixed(self._subsamples):
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
        """Messages of all sample sites, latents having these values or starting values."""
        met = _Fixed(values, unconstrained=unconstrained)
        with self.hidden(), _Around(chains), starting_values(), met:
            self._model()
        return met.sites

    def _log_densities(self, position: Tensor, *, apart: bool) -> tuple[Tensor, Tensor]:
        unconstrained = self.packing.unpack(position)
        prior = rest = position.new_zeros(position.shape[:-1])
        with scoring():
            met = self._run(unconstrained, unconstrained=True)
            for name in self.sites:
                site_density = self.per_element(met[name], log_density(met[name]))
                if name not in unconstrained:
                    rest = rest + site_density
                    continue
                volume = self.packing.total(log_volume(met[name], unconstrained[name]))
                prior = prior + site_density + volume
                tilted = tilt(met[name]) if apart else None
                if tilted is not None:
                    tilted = self.per_element(met[name], tilted)
                    prior, rest = prior - tilted, rest + tilted
        return prior, rest

    def _position(self, met: Mapping[str, Site]) -> Tensor:
        return self.packing.pack({name: unconstrained_value(met[name]) for name in self.latents})

    def _leave_out_constants(self, unconstrained: Mapping[str, Tensor]) -> None:
        """Forget observed sites outside of the latents' plates that know nothing of the latents."""
        shared = shared_plates(self.latents.values())
        outside = [name for name, site in self.sites.items() if not plates_of(site) >= shared]
        if not outside:
            return
        with torch.enable_grad(), scoring():
            latents = {name: x.clone().requires_grad_() for name, x in unconstrained.items()}
            met = self._run(latents, unconstrained=True)
            for name in outside:
                leaves = {id(leaf) for leaf in graph_leaves(log_density(met[name]))}
                if leaves.isdisjoint(map(id, latents.values())):
                    del self.sites[name]


class _Fixed(Messenger):
    """Gives sites their values, and keeps the messages of all sample sites."""

    def __init__(self, values: Mapping[str, Tensor], *, unconstrained: bool = False) -> None:
        super().__init__()
        self.values = values
        self.unconstrained = unconstrained
        self.sites: dict[str, Any] = {}

    def _pyro_sample(self, msg: Any) -> None:
        value = self.values.get(msg["name"])
        if value is not None:
            msg["value"] = biject_to(msg["fn"].support)(value) if self.unconstrained else value

    def _pyro_post_sample(self, msg: Any) -> None:
        self.sites[msg["name"]] = msg.copy()


class _Around(Messenger):
    """Plates that are open already: Pyro would not open them again inside of a block."""

    def __init__(self, frames: Sequence[CondIndepStackFrame]) -> None:
        super().__init__()
        self.frames = frames

    def _pyro_sample(self, msg: Any) -> None:
        # The elements are weighed where the plate is.
        frames = tuple(frame._replace(full_size=frame.size) for frame in self.frames)
        msg["cond_indep_stack"] = frames + msg["cond_indep_stack"]
        BroadcastMessenger._pyro_sample(msg)


def _check_latents(latents: Mapping[str, Site]) -> None:
    if not latents:
        raise ValueError("Expected a model with latent variables, got none.")
    for name, site in latents.items():
        if site["fn"].support.is_discrete or isinstance(site["fn"], Delta):
            raise ValueError(
                f"Expected continuous latent variables, got {type(site['fn']).__name__} at site "
                f"{name!r}: its density has no gradient to walk along."
            )


def _check_subsampling(sites: Mapping[str, Site]) -> None:
    shared = {name for name, _ in shared_plates(sites.values())}
    for site in sites.values():
        for frame in site["cond_indep_stack"]:
            if frame.name not in shared and frame.full_size not in (None, frame.size):
                raise ValueError(
                    f"Expected no subsampling in plate {frame.name!r}, which does not contain all "
                    f"of {list(sites)}: what {frame.size} of {frame.full_size} elements say of "
                    "the sites outside is not what all would say."
                )
