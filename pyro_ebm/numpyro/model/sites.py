"""Sample sites of NumPyro: energies inside of them, log-densities, dependencies, and issues."""

from collections.abc import Callable, Iterable, Iterator, Set
from copy import copy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import (
    Distribution,
    ExpandedDistribution,
    FoldedDistribution,
    Independent,
    MaskedDistribution,
    TransformedDistribution,
)
from numpyro.distributions.util import scale_and_mask, sum_rightmost
from numpyro.handlers import block, seed, substitute, trace

from pyro_ebm.core.distributions import context
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.model import issues
from pyro_ebm.core.model.energies import EnergyFinder
from pyro_ebm.core.model.sites import Site
from pyro_ebm.numpyro.distributions.bound_energy import trainable_arrays
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.model.provenance import find_provenance

WRAPPERS = (Independent, MaskedDistribution, ExpandedDistribution, TransformedDistribution)

# --- energies inside of other distributions ---


def _parts_of(fn: Any) -> Iterator[Distribution]:
    leaves = jax.tree.leaves(getattr(fn, "__dict__", {}), is_leaf=_is_distribution)
    return filter(_is_distribution, leaves)


_finder = EnergyFinder(
    plates=(Independent, ExpandedDistribution),
    others=(MaskedDistribution, TransformedDistribution),
    folded=FoldedDistribution,
    parts_of=_parts_of,
)
unwrap, has_energy, find_mixture = _finder.unwrap, _finder.has_energy, _finder.find_mixture
find_energy, find_plain_energy = _finder.find_energy, _finder.find_plain_energy
is_unnormalized, lacks_constant = _finder.is_unnormalized, _finder.lacks_constant


def map_energy(fn: Any, value: Array, function: Callable[[EnergyBased, Array], Array]) -> Array:
    """``fn.log_prob(value)`` as NumPyro computes it, ``function`` replacing the energy's own."""
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


def with_counted_context(fn: Any, mask: Array | None = None) -> Any:
    """Copy of a distribution whose context in masked rows is that of a row that counts.

    What is masked out may be NaN, and NaN gradients survive a mask.
    """
    if not isinstance(fn, WRAPPERS):
        is_energy = mask is not None and isinstance(fn, EnergyBased)
        return context.with_counted_context(fn, jnp.asarray(mask)) if is_energy else fn
    if isinstance(fn, MaskedDistribution):
        mask = fn._mask if mask is None else mask & fn._mask
    if mask is not None:
        num_inner = max(len(fn.base_dist.batch_shape) - len(fn.batch_shape), 0)
        mask = jnp.reshape(mask, jnp.shape(mask) + (1,) * num_inner)
    new = copy(fn)
    new.base_dist = with_counted_context(fn.base_dist, mask)
    return new


# --- log-densities ---


def inner_sites(msg: Any) -> Iterable[Any]:
    """Sites of a ``scan`` or ``cond``: they come when what was around them is closed."""
    if msg["type"] != "control_flow":
        return ()
    inner = msg["value"][1]
    return (inner[0] if isinstance(inner, tuple) else inner).trace.values()


def spread_over_value(site: Site) -> Any:
    """Distribution of a site in the batch shape of its value, or of values to be drawn.

    Without plates it may have less. NumPyro broadcasts its log-density, and so counts each value.
    """
    fn, value = site["fn"], site["value"]
    if value is None:
        batch_shape = (*site["kwargs"]["sample_shape"], *fn.batch_shape)
    else:
        batch_shape = jnp.shape(value)[: jnp.ndim(value) - fn.event_dim]
    shape = jnp.broadcast_shapes(fn.batch_shape, batch_shape)
    return fn if shape == fn.batch_shape else fn.expand(shape)


def log_density(site: Site) -> Array:
    """Log-density of each batch element; masks are a part of it, scales are not."""
    # Of a flow whose inverse is not known: what its draw went through.
    intermediates = site.get("intermediates")
    given = [intermediates] if intermediates else []
    return site["fn"].log_prob(site["value"], *given)


# --- dependencies: a second, abstract run of the model ---


class Dependencies(NamedTuple):
    """Names of the parameters and latent variables behind a site's density.

    Attributes:
        energy: Behind the energy.
        potential: Behind energy and base, support, masks and scale.
        normalizer: Behind the log-normalizer and its factors: the same, but for what is given to
            a conditional.
        arrays: Behind each trainable array of the energy, by its path.
    """

    energy: frozenset[str]
    potential: frozenset[str]
    normalizer: frozenset[str]
    arrays: dict[str, frozenset[str]]


def find_dependencies(
    names: Iterable[str], inputs: dict[str, Any], model: Callable[[], Any]
) -> dict[str, Dependencies]:
    """Trace the dependencies of energy-based sites.

    Args:
        names: Names of the sites.
        inputs: Values (or their shapes and types) of the parameters and latent variables.
        model: The model, with its arguments bound.
    """

    def run(**inputs: Any) -> dict[str, list[Any]]:
        with block(), trace() as rerun, seed(rng_seed=0), substitute(data=inputs):
            model()
        return {name: _tracked(rerun[name]) for name in names}

    found = find_provenance(run, **inputs)
    return {
        name: Dependencies(_union(energy), _union(potential), _union(normalizer), arrays)
        for name, (energy, potential, normalizer, arrays) in found.items()
    }


def _tracked(site: Any) -> list[Any]:
    fn, value, energy = site["fn"], site["value"], find_energy(site["fn"])
    assert energy is not None
    # At a constant value: one that a latent variable transforms is no harm.
    energies = map_energy(fn, value, lambda fn, x: scaled_energy(fn, jnp.zeros_like(x)))
    potential = map_energy(fn, value, lambda fn, x: fn.potential(jnp.zeros_like(x)))
    normalizer = map_energy(fn, value, lambda fn, x: _at_constants(fn).potential(jnp.zeros_like(x)))
    weighted = [scale_and_mask(factor, site["scale"]) for factor in (potential, normalizer)]
    arrays = {} if energy._is_held else trainable_arrays(energy.energy)
    return [energies, *([factor, energy.support] for factor in weighted), arrays]


def _at_constants(energy: EnergyBased) -> EnergyBased:
    """Conditional at constant values of what is given; any other distribution as it is."""
    if not energy._is_conditional:
        return energy
    return context.with_context(energy, jax.tree.map(jnp.zeros_like, energy.context))


def _union(names: Any) -> frozenset[str]:
    is_set = lambda leaf: isinstance(leaf, frozenset)  # noqa: E731
    return frozenset().union(*jax.tree.leaves(names, is_leaf=is_set))


# --- issues: `check_model` lists them, `EnergyELBO` raises or warns ---


def issues_of_arrays(site: str, found: Dependencies) -> Iterator[issues.ModelIssue]:
    """Yield the arrays of an energy that come from no registered parameter or latent."""
    unseen = [path for path, names in found.arrays.items() if not names]
    if unseen:
        yield _unregistered(site, unseen, "arrays of NumPy: jax.device_get(energy)")


def issues_of_untrained(
    site: str, found: Dependencies, parameters: Set[str]
) -> Iterator[issues.ModelIssue]:
    """Yield an issue if no registered parameter is behind a trained energy."""
    if not parameters & (found.energy if found.arrays else found.potential):
        yield _unregistered(site, found.arrays, "a dictionary of objectives without this site")


def _unregistered(site: str, paths: Iterable[str], remedy: str) -> issues.ModelIssue:
    advice = (
        "register them inside the model with eqx_module, nnx_module, flax_module or numpyro.param; "
        f"if they are meant to stay as they are, say so by {remedy}"
    )
    return issues.unregistered(site, paths, advice)


def _is_distribution(part: Any) -> bool:
    return isinstance(part, Distribution)
