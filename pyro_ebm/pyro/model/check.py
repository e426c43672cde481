"""Does inference on a model with energy-based sites mean what it says?"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.distributions.util import scale_and_mask
from pyro.infer.autoguide import AutoGuide
from pyro.infer.inspect import is_sample_site
from pyro.ops.provenance import detach_provenance, get_provenance, track_provenance
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from pyro_ebm.core.model.issues import (
    Finding,
    doubly_intractable,
    implicit_latent,
    in_guide,
    in_mixture,
)
from pyro_ebm.pyro.distributions.bound_energy import graph_leaves, kept_buffers
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.model.sites import (
    find_energy,
    find_mixture,
    find_unregistered,
    has_implicit_base,
    map_energy,
)

__all__ = ["check_model"]


def check_model(
    model: Callable[..., Any],
    *args: Any,
    guide: Callable[..., Any] | None = None,
    **kwargs: Any,
) -> list[Finding]:
    """Look for energy-based sites that inference would get wrong without a word.

    The model runs once, with its latent variables at zero in unconstrained space. No chain runs;
    parameters, the param store and the random state stay as they are. What is found depends on
    this one run: a dependence that leaves tensors behind (``if k == 1:``, ``energies[int(k)]``)
    is not seen.

    Args:
        model: The model.
        *args: Its arguments, and the guide's.
        guide: A guide to look at too. An autoguide holds no energy, and is not run.
        **kwargs: Their keyword arguments.

    Returns:
        What was found, in the order of the sites; empty for a model that is fine. Of each
        finding, ``site``, ``kind`` and ``message`` say where, what and what to do:

        - ``"doubly_intractable"``: the energy, base, support, mask or scale of a site without
          known ``log_normalizer`` depends on another latent variable;
        - ``"mixture"``: an energy without known ``log_normalizer`` is a component of a mixture,
          or depends on a discrete latent variable;
        - ``"guide"``: the guide samples an energy;
        - ``"implicit"``: a latent variable has a base without a density;
        - ``"unregistered"``: no optimizer will see the trainable parameters of an energy.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        ...     pyro.sample("x", EnergyBased(lambda x: scale * x**2, event_shape=()))
        >>> [(finding.site, finding.kind) for finding in check_model(model)]
        [('x', 'doubly_intractable')]
    """
    with _leaving_no_trace():
        with poutine.trace(param_only=True) as params, _ModelSites() as sites, kept_buffers(model):
            model(*args, **kwargs)
        for name, (energy, leaves) in sites.leaves.items():
            finding = find_unregistered(name, energy, leaves, params.trace)
            sites.findings += [] if finding is None else [finding]
        if guide is None or isinstance(guide, AutoGuide):
            return sites.findings
        with _WithoutChains() as in_the_guide, kept_buffers(guide):
            guide(*args, **kwargs)
        return sites.findings + [in_guide(name) for name in in_the_guide.energies]


@contextmanager
def _leaving_no_trace() -> Iterator[None]:
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


class _WithoutChains(Messenger):
    """Puts latent variables where their transforms have zero: no chain runs, no draw is odd."""

    def __init__(self) -> None:
        super().__init__()
        self.energies: list[str] = []

    def _pyro_sample(self, msg: Any) -> None:
        fn, energy = msg["fn"], find_energy(msg["fn"])
        if energy is not None or find_mixture(fn) is not None:
            self.energies.append(msg["name"])
        if msg["value"] is None and is_sample_site(msg) and not fn.support.is_discrete:
            try:
                bijection = biject_to(fn.support)
            except NotImplementedError:  # A mixture's, for example: drawn as usual.
                return
            like = detach_provenance(fn.sample() if energy is None else energy.start(torch.Size()))
            zeros = like.new_zeros(bijection.inverse_shape(fn.shape()))
            msg["value"], msg["done"] = bijection(zeros), True


class _ModelSites(_WithoutChains):
    """Marks the values of latent variables, and looks for the marks in what log Z depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.findings: list[Finding] = []
        self.latents: dict[str, bool] = {}
        self.leaves: dict[str, tuple[EnergyBased, list[Tensor]]] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        name, fn = msg["name"], msg["fn"]
        mixture = find_mixture(fn)
        if mixture is not None:
            self.findings.append(in_mixture(name, mixture))
        energy = find_energy(fn)
        if energy is not None:
            self._examine(msg, energy)
            if has_implicit_base(fn) and not msg["is_observed"]:
                self.findings.append(implicit_latent(name))
        if is_sample_site(msg) and not msg["is_observed"]:
            self.latents[name] = fn.support.is_discrete
            msg["value"] = track_provenance(detach_provenance(msg["value"]), frozenset({name}))

    def _examine(self, msg: Any, energy: EnergyBased) -> None:
        name = msg["name"]

        def potential(energy: EnergyBased, value: Tensor) -> Tensor:
            # At a constant value: one that a latent variable transforms is no harm.
            with torch.enable_grad(), kept_buffers(energy.energy):
                potential = energy.potential(detach_provenance(value).detach())
            self.leaves[name] = energy, list(graph_leaves(potential))
            return potential

        weighted = scale_and_mask(
            map_energy(msg["fn"], msg["value"], potential), msg["scale"], msg["mask"]
        )
        if energy.log_normalizer is None:
            reached = get_provenance([weighted, *_bounds(energy.support)])
            self.findings += [
                doubly_intractable(name, latent, is_discrete=is_discrete)
                for latent, is_discrete in self.latents.items()
                if latent in reached
            ]


def _bounds(support: Any) -> Iterator[Any]:
    """The tensors in a constraint."""
    for part in vars(support).values():
        if isinstance(part, constraints.Constraint):
            yield from _bounds(part)
        else:
            yield part
