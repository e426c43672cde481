"""What the distribution of a site holds, and which parameters and latents that depends on."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import (
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
    TransformedDistribution,
)
from numpyro.distributions.util import scale_and_mask, sum_rightmost
from numpyro.handlers import block, seed, substitute, trace
from numpyro.ops.provenance import eval_provenance

from pyro_ebm.core.checks import is_implicit
from pyro_ebm.numpyro.distributions.bound_energy import trainable_arrays
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased

__all__ = [
    "Dependencies",
    "HOW_TO_REGISTER",
    "find_dependencies",
    "find_energy",
    "find_mixture",
    "has_implicit_base",
    "map_energy",
]

HOW_TO_REGISTER = (
    "register them inside the model with eqx_module, nnx_module, flax_module or numpyro.param"
)

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
    for part in jax.tree.leaves(getattr(mixture, "__dict__", {}), is_leaf=_is_distribution):
        if _is_distribution(part) and (_is_unnormalized(part) or find_mixture(part)):
            return mixture
    return None


def map_energy(fn: Any, value: Array, function: Callable[[EnergyBased, Array], Array]) -> Array:
    """Treat a site's density as NumPyro would, with ``function`` in the place of ``log_prob``.

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
        return sum_rightmost(mapped, fn.reinterpreted_batch_ndims)
    if isinstance(fn, MaskedDistribution):
        mask = jnp.asarray(fn._mask)
        # As the host does: what is masked out may be NaN, and NaN gradients survive a mask.
        event_mask = mask.reshape(mask.shape + (1,) * fn.event_dim)
        value = jnp.where(event_mask, value, fn.support.feasible_like(value))
        return jnp.where(mask, map_energy(fn.base_dist, value, function), 0.0)
    if isinstance(fn, TransformedDistribution):
        for transform in reversed(fn.transforms):
            value = transform.inv(value)
        return map_energy(fn.base_dist, value, function)
    if isinstance(fn, ExpandedDistribution):
        mapped = map_energy(fn.base_dist, value, function)
    else:
        mapped = function(fn, value)
    return jnp.broadcast_to(mapped, jnp.broadcast_shapes(mapped.shape, fn.batch_shape))


class Dependencies(NamedTuple):
    """Names of the parameters and latent variables that a site's density depends on.

    Attributes:
        energy: Behind the energy.
        potential: Behind all that the log-normalizer depends on, or is multiplied with: energy
            and base, support, masks and scale.
        arrays: Behind each array of the energy that could be trained, by its path.
    """

    energy: frozenset[str]
    potential: frozenset[str]
    arrays: dict[str, frozenset[str]]


def find_dependencies(
    names: Iterable[str], inputs: dict[str, Any], model: Callable[[], Any]
) -> dict[str, Dependencies]:
    """What energy-based sites depend on; the model runs once more, abstractly.

    Args:
        names: Names of the sites.
        inputs: Values (or their shapes and types) of the parameters and latent variables.
        model: The model, with its arguments bound.
    """

    def run(**inputs: Any) -> dict[str, list[Any]]:
        with block(), trace() as rerun, seed(rng_seed=0), substitute(data=inputs):
            model()
        return {name: _tracked(rerun[name]) for name in names}

    found = eval_provenance(run, **inputs)
    return {
        name: Dependencies(_union(energy), _union(potential), arrays)
        for name, (energy, potential, arrays) in found.items()
    }


def _tracked(site: Any) -> list[Any]:
    fn, value, energy = site["fn"], site["value"], find_energy(site["fn"])
    assert energy is not None
    # At a constant value: one that a latent variable transforms is no harm.
    energies = map_energy(fn, value, lambda fn, x: fn.evaluate(jnp.zeros_like(x)))
    potential = map_energy(fn, value, lambda fn, x: fn.potential(jnp.zeros_like(x)))
    weighted = scale_and_mask(potential, site["scale"])
    return [energies, [weighted, energy.support], trainable_arrays(energy.energy)]


def _union(names: Any) -> frozenset[str]:
    is_set = lambda leaf: isinstance(leaf, frozenset)  # noqa: E731
    return frozenset().union(*jax.tree.leaves(names, is_leaf=is_set))


def _unwrap(fn: Any) -> Any:
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    return fn


def _is_unnormalized(fn: Any) -> bool:
    energy = find_energy(fn)
    return energy is not None and energy.log_normalizer is None


def _is_distribution(part: Any) -> bool:
    return isinstance(part, Distribution)
