"""Search for energy-based sites that inference would get wrong without an error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer.autoguide import AutoGuide
from pyro.infer.inspect import is_sample_site
from pyro.ops.provenance import detach_provenance, get_provenance, track_provenance
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from pyro_ebm.core.distributions.context import bounds_of, with_context
from pyro_ebm.core.model.issues import (
    ModelIssue,
    in_guide,
    issues_of_latents,
    issues_of_rows,
    issues_of_site,
)
from pyro_ebm.pyro.distributions.bound_energy import kept_buffers
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.distributions.graph import graph_leaves
from pyro_ebm.pyro.model.sites import (
    find_energy,
    find_mixture,
    has_energy,
    issues_of_leaves,
    map_energy,
    without_observations,
)
from pyro_ebm.pyro.samplers.target import initial_values


def check_model(
    model: Callable[..., Any], guide: Callable[..., Any] | None = None
) -> Callable[..., list[ModelIssue]]:
    """Make a function that lists the issues of a model, and of a guide, given their arguments.

    Call it before you train or sample; an empty list means that no issue was found. It runs the
    model once, without chains, with latent variables at zero in unconstrained space, and each
    energy on a few rows. Parameters, the param store and the random state do not change. A
    dependence that does not go through tensors (``if k == 1:``, ``energies[int(k)]``) is not found.
    The issues: :class:`~pyro_ebm.core.model.issues.ModelIssue`.

    Example:
        >>> import pyro, pyro.distributions as dist, pyro_ebm.pyro as ebm
        >>> def model():
        ...     scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        ...     pyro.sample("x", ebm.EnergyBased(lambda x: scale * x**2, event_shape=()))
        >>> [(issue.site, issue.kind) for issue in check_model(model)()]
        [('x', 'doubly_intractable')]
    """

    def check(*args: Any, **kwargs: Any) -> list[ModelIssue]:
        with leaving_no_trace():
            issues = _check_sites(model, args, kwargs)
            if guide is not None and not isinstance(guide, AutoGuide):
                with _GuideSites() as sites, kept_buffers(guide):
                    without_observations(guide)(*args, **kwargs)
                issues += sites.issues
        return issues

    return check


def _check_sites(model: Any, args: Any, kwargs: Any) -> list[ModelIssue]:
    with poutine.trace(param_only=True) as params, ModelSites() as sites, kept_buffers(model):
        model(*args, **kwargs)
    for name, (energy, leaves) in sites.leaves.items():
        sites.issues += issues_of_leaves(name, energy, leaves, params.trace)
    return sites.issues


@contextmanager
def leaving_no_trace() -> Iterator[None]:
    store = pyro.get_param_store()
    known = set(store.keys())
    try:
        with (
            poutine.block(),
            torch.random.fork_rng(),
            torch.no_grad(),
            pyro.validation_enabled(is_validate=False),
        ):
            yield
    finally:
        for name in set(store.keys()) - known:
            del store[name]


class _GuideSites(Messenger):
    """Handler that sets latent variables to zero in unconstrained space, and finds energies."""

    def __init__(self) -> None:
        super().__init__()
        self.issues: list[ModelIssue] = []

    def _pyro_sample(self, msg: Any) -> None:
        fn, energy = msg["fn"], find_energy(msg["fn"])
        self._inspect(msg)
        if msg["value"] is None and is_sample_site(msg) and not fn.support.is_discrete:
            try:
                bijection = biject_to(fn.support)
            except NotImplementedError:  # A mixture's, for example: drawn as usual.
                return
            like = _example(fn) if energy is None else initial_values(energy, torch.Size())
            zeros = detach_provenance(like).new_zeros(bijection.inverse_shape(fn.shape()))
            msg["value"], msg["done"] = bijection(zeros), True

    def _inspect(self, msg: Any) -> None:
        self.issues += [in_guide(msg["name"])] if has_energy(msg["fn"]) else []


def _example(fn: Any) -> Tensor:
    """Tensor of the type of values."""
    try:
        return fn.sample()
    except NotImplementedError:  # An improper prior.
        return torch.zeros(())


class ModelSites(_GuideSites):
    """Handler that marks latent variables, and looks for marks behind log-normalizers."""

    def __init__(self) -> None:
        super().__init__()
        self.latents: dict[str, bool] = {}
        self.leaves: dict[str, tuple[EnergyBased, list[Tensor]]] = {}
        self.behind: dict[str, frozenset[str]] = {}

    def _inspect(self, msg: Any) -> None: ...

    def _pyro_post_sample(self, msg: Any) -> None:
        name, energy = msg["name"], find_energy(msg["fn"])
        self.issues += issues_of_site(msg, energy, find_mixture(msg["fn"]))
        if energy is not None:
            self._examine(msg, energy)
        if is_sample_site(msg) and not msg["is_observed"]:
            self.latents[name] = msg["fn"].support.is_discrete
            msg["value"] = track_provenance(detach_provenance(msg["value"]), frozenset({name}))

    def _examine(self, msg: Any, energy: EnergyBased) -> None:
        name = msg["name"]
        rows = msg["value"] if msg["is_observed"] else initial_values(energy, (2,))
        found = list(issues_of_rows(name, energy, detach_provenance(rows)))
        if found:
            self.issues += found
            return

        def potential(energy: EnergyBased, value: Tensor) -> Tensor:
            # At a constant value: one that a latent variable transforms is no harm.
            with torch.enable_grad(), kept_buffers(energy.energy):
                potential = energy.potential(detach_provenance(value).detach())
            self.leaves[name] = energy, [] if energy._is_held else list(graph_leaves(potential))
            return potential

        self.behind[name] = _marks(msg, energy, potential)
        if energy._is_conditional:
            fixed = _marks(msg, energy, lambda it, value: potential(_at_constants(it), value))
            self.issues += issues_of_latents(name, fixed, self.latents)
        elif energy.log_normalizer is None:
            self.issues += issues_of_latents(name, self.behind[name], self.latents)


def _marks(msg: Any, energy: EnergyBased, potential: Callable[..., Tensor]) -> frozenset[str]:
    """Names of latent variables behind the potential, support, mask and scale of a site."""
    found = map_energy(msg["fn"], msg["value"], potential)
    weighted = scale_and_mask(found, msg["scale"], msg["mask"])
    return get_provenance([weighted, *bounds_of(energy.support)])


def _at_constants(energy: EnergyBased) -> EnergyBased:
    """Conditional at constant values of what is given."""
    return with_context(energy, detach_provenance(energy.context))
