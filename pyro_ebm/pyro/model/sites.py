"""Sample sites of Pyro: energies inside of them, log-densities, and issues."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from pyro import poutine
from pyro.distributions import Independent, MaskedDistribution, TransformedDistribution
from pyro.distributions.folded import FoldedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.distributions.util import broadcast_shape, scale_and_mask, sum_rightmost
from pyro.poutine.guide import GuideMessenger
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_ebm.core.model import issues
from pyro_ebm.core.model.energies import EnergyFinder
from pyro_ebm.core.model.sites import Site
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.distributions.graph import graph_leaves, graph_nodes

# --- energies inside of other distributions ---


def _parts_of(fn: Any) -> Iterator[Distribution]:
    for part in getattr(fn, "__dict__", {}).values():
        if isinstance(part, Distribution):
            yield part


_finder = EnergyFinder(
    plates=(Independent, ExpandedDistribution),
    others=(MaskedDistribution, TransformedDistribution),
    folded=FoldedDistribution,
    parts_of=_parts_of,
)
unwrap, has_energy, find_mixture = _finder.unwrap, _finder.has_energy, _finder.find_mixture
find_energy, find_plain_energy = _finder.find_energy, _finder.find_plain_energy
is_unnormalized, lacks_constant = _finder.is_unnormalized, _finder.lacks_constant


def map_energy(fn: Any, value: Tensor, function: Callable[[EnergyBased, Tensor], Tensor]) -> Tensor:
    """Evaluate ``log_prob`` of ``fn`` with ``function(energy, value)`` in place of the energy's.

    Masked-out batch elements give zero; ``to_event`` sums. ``function`` maps ``(*batch, *event)``
    to a shape that broadcasts with ``(*batch,)``.
    """
    if isinstance(fn, Independent):
        mapped = map_energy(fn.base_dist, value, function)
        return cast(Tensor, sum_rightmost(mapped, fn.reinterpreted_batch_ndims))
    if isinstance(fn, MaskedDistribution):
        mapped = map_energy(fn.base_dist, value, function)
        return cast(Tensor, scale_and_mask(mapped, mask=fn._mask))
    if isinstance(fn, TransformedDistribution):
        for transform in reversed(fn.transforms):
            value = transform.inv(value)
        return map_energy(fn.base_dist, value, function)
    if isinstance(fn, ExpandedDistribution):
        mapped = map_energy(fn.base_dist, value, function)
    else:
        mapped = function(fn, value)
    return mapped.expand(broadcast_shape(mapped.shape, fn.batch_shape))


# --- log-densities ---


def spread_over_value(site: Site) -> Any:
    """Distribution of a site; of an observed one without plates, in the batch shape of its value.

    Pyro broadcasts its log-density, and so counts each of these values.
    """
    fn = site["fn"]
    if not site["is_observed"]:
        return fn
    batch_shape = site["value"].shape[: site["value"].ndim - fn.event_dim]
    shape = broadcast_shape(fn.batch_shape, batch_shape)
    return fn if shape == fn.batch_shape else fn.expand(shape)


def log_density(site: Site) -> Tensor:
    """Log-density of each batch element, without the scales and masks of handlers."""
    return site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])


def without_observations(guide: Callable[..., Any]) -> Callable[..., Any]:
    """Hide what a guide observes: a ``GuideMessenger`` runs the model, data included."""
    if not isinstance(poutine.unwrap(guide), GuideMessenger):
        return guide
    return poutine.block(guide, hide_fn=lambda msg: msg.get("is_observed", False))


# --- issues: `check_model` lists them, `EnergyELBO` raises or warns ---


def issues_of_graph(
    site: str, loss: Tensor, latents: Mapping[str, Tensor]
) -> Iterator[issues.ModelIssue]:
    """Yield the latents that the loss of a site's objective has gradients in."""
    reached = {id(node) for node in graph_nodes(loss)} | {id(leaf) for leaf in graph_leaves(loss)}
    for name, latent in latents.items():
        origin = latent if latent.grad_fn is None else latent.grad_fn
        if latent.requires_grad and id(origin) in reached:
            yield issues.doubly_intractable(site, name)


def issues_of_leaves(
    site: str, energy: EnergyBased, leaves: Iterable[Tensor], params: Any
) -> Iterator[issues.ModelIssue]:
    """Yield the issue that leaves of a loss or potential are missing in a trace of parameters."""
    # Names cannot be trusted: one that the store holds already stands for other tensors.
    seen = {id(_unconstrained(node["value"])) for node in params.nodes.values()}
    reason = (
        "they are not registered, or another module is registered under their name: use "
        "pyro.module with a name of its own, or make the energy a child of a PyroModule "
        "(to train again from new weights, pyro.clear_param_store() first)"
    )
    unseen = [leaf for leaf in leaves if id(leaf) not in seen]
    return issues_of_untrained(site, energy, unseen, reason)


def _unconstrained(parameter: Any) -> Tensor:
    # The module form of an ELBO has parameters of its own, without transforms.
    is_stored = hasattr(parameter, "unconstrained")
    return cast(Tensor, parameter.unconstrained() if is_stored else parameter)


def issues_of_untrained(
    site: str, energy: EnergyBased, parameters: Iterable[Tensor], reason: str
) -> Iterator[issues.ModelIssue]:
    """Yield the issue that there are parameters which, for this reason, no optimizer updates."""
    named = energy.energy.named_parameters() if isinstance(energy.energy, nn.Module) else ()
    names = {id(parameter): name for name, parameter in named}
    described = [names.get(id(x), f"a tensor of shape {tuple(x.shape)}") for x in parameters]
    if described:
        advice = (
            "if they are meant to stay as they are, say so by module.requires_grad_(False).eval()"
        )
        yield issues.unregistered(site, described, f"{reason}; {advice}")
