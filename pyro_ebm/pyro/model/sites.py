"""What the distribution of a site holds: an energy inside wrappers or a mixture, parameters."""

from collections.abc import Callable, Iterable
from typing import Any, cast

from pyro.distributions import Independent, MaskedDistribution, TransformedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.distributions.util import broadcast_shape, scale_and_mask, sum_rightmost
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_ebm.core.checks import is_implicit
from pyro_ebm.core.model.issues import Finding, unregistered
from pyro_ebm.pyro.distributions.energy_based import EnergyBased

__all__ = [
    "find_energy",
    "find_mixture",
    "find_unregistered",
    "has_implicit_base",
    "map_energy",
    "never_seen",
]

_WRAPPERS = (Independent, MaskedDistribution, ExpandedDistribution, TransformedDistribution)


def find_energy(fn: Any) -> EnergyBased | None:
    """The energy-based distribution of a site, looking through masks, plates and transforms."""
    unwrapped = _unwrap(fn)
    return unwrapped if isinstance(unwrapped, EnergyBased) else None


def has_implicit_base(fn: Any) -> bool:
    """Whether a site's distribution is an energy on a base without a density."""
    energy = find_energy(fn)
    return energy is not None and is_implicit(energy.base)


def find_mixture(fn: Any) -> Distribution | None:
    """The distribution of a site, if it has an energy without log-normalizer among its parts."""
    mixture = _unwrap(fn)
    if isinstance(mixture, EnergyBased):
        return None
    for part in getattr(mixture, "__dict__", {}).values():
        if isinstance(part, Distribution) and (_is_unnormalized(part) or find_mixture(part)):
            return mixture
    return None


def map_energy(fn: Any, value: Tensor, function: Callable[[EnergyBased, Tensor], Tensor]) -> Tensor:
    """Treat a site's density as Pyro would, with ``function`` in the place of ``log_prob``.

    Args:
        fn: The distribution of a site, an energy-based one in any number of wrappers.
        value: Value of the site.
        function: Maps the energy-based distribution and its value, of shape
            ``(*batch, *event)``, to shape ``(*batch,)``, or to one that broadcasts with it.

    Returns:
        One number for each batch element of ``fn``: masked-out ones are zero, dimensions that
        ``to_event`` made dependent are summed.
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


def find_unregistered(
    site: str, energy: EnergyBased, leaves: Iterable[Tensor], trace: Any
) -> Finding | None:
    """What is wrong if a potential has trainable leaves that no ``param`` message brought.

    Args:
        site: Name of the energy-based site.
        energy: Its distribution.
        leaves: Tensors that its potential, or the loss of its objective, sends gradients to.
        trace: The messages of the run, of type ``param``.
    """
    # Names cannot be trusted: one that the store holds already stands for other tensors.
    seen = {id(node["value"].unconstrained()) for node in trace.nodes.values()}
    reason = (
        "they are not registered, or another module is registered under their name: use "
        "pyro.module with a name of its own, or make the energy a child of a PyroModule "
        "(to train again from new weights, pyro.clear_param_store() first)"
    )
    return never_seen(site, energy, [leaf for leaf in leaves if id(leaf) not in seen], reason)


def never_seen(
    site: str, energy: EnergyBased, parameters: Iterable[Tensor], reason: str
) -> Finding | None:
    """What is wrong if there are parameters that no optimizer sees, for this reason."""
    named = energy.energy.named_parameters() if isinstance(energy.energy, nn.Module) else ()
    names = {id(parameter): name for name, parameter in named}
    described = [names.get(id(x), f"a tensor of shape {tuple(x.shape)}") for x in parameters]
    advice = "if they are meant to stay as they are, say so with requires_grad_(False)"
    return unregistered(site, described, f"{reason}; {advice}") if described else None


def _unwrap(fn: Any) -> Any:
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    return fn


def _is_unnormalized(fn: Any) -> bool:
    energy = find_energy(fn)
    return energy is not None and energy.log_normalizer is None
