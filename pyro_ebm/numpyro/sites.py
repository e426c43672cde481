"""Energy-based sites of a model: found, checked, and given the gradient of their objective."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jax import Array, lax
from numpyro.distributions import (
    Delta,
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
    TransformedDistribution,
)
from numpyro.distributions.util import scale_and_mask, sum_rightmost
from numpyro.handlers import block, seed, substitute, trace
from numpyro.ops.provenance import eval_provenance
from numpyro.primitives import CondIndepStackFrame, Messenger
from numpyro.util import not_jax_tracer

from pyro_ebm.core.checks import check_auxiliary, check_sites
from pyro_ebm.core.numerics import log_mean_exp
from pyro_ebm.numpyro.chains import with_values
from pyro_ebm.numpyro.distributions import EnergyBased
from pyro_ebm.numpyro.energies import _parameter_names

__all__ = ["EnergySite", "EnergySites", "find_energy", "map_energy"]

_WRAPPERS = (Independent, MaskedDistribution, ExpandedDistribution, TransformedDistribution)


def find_energy(fn: Any) -> EnergyBased | None:
    """The energy-based distribution of a site, looking through masks, plates and transforms.

    Raises:
        ValueError: If an energy-based distribution is a component of a mixture.
    """
    wrapped = fn
    while isinstance(wrapped, _WRAPPERS):
        wrapped = wrapped.base_dist
    if isinstance(wrapped, EnergyBased):
        return wrapped
    for part in jax.tree.leaves(getattr(wrapped, "__dict__", {}), is_leaf=_is_distribution):
        if _is_distribution(part) and find_energy(part) is not None:
            raise ValueError(
                f"Expected normalized components of {type(wrapped).__name__}, got EnergyBased: "
                "with an unknown log-normalizer, weights and responsibilities would be wrong."
            )
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


@dataclass
class EnergySite:
    """An energy-based site as one run of a model met it.

    Attributes:
        name: Name of the site.
        fn: Its distribution, with its wrappers (masks among them).
        value: Its value, held constant.
        scale: Factor on its log-density, from plates that subsample and the like.
        plates: The plates around it.
        objective: What trains it, or None.
        learners: What the guide declared for it.
    """

    name: str
    fn: Any
    value: Array
    scale: Any
    plates: tuple[Any, ...]
    objective: Any
    learners: dict[str, Any]

    def loss(self, rng_key: Array) -> Array:
        """The objective's loss of each batch element."""
        return self._map(lambda fn, x: self.objective.loss(rng_key, fn, x, **self.learners))

    def log_normalizer(self, rng_key: Array, num_samples: int) -> Array:
        """Estimate for each batch element, from draws of the base; zero if there is no base."""
        try:
            log_weights = self.energy.importance_log_weights(rng_key, num_samples)
        except NotImplementedError:
            warnings.warn(
                f"The reported loss leaves out the log-normalizer of site {self.name!r}, which "
                "has no base to estimate it from.",
                stacklevel=2,
            )
            return jnp.zeros(())
        return self._map(lambda fn, x: log_mean_exp(log_weights))

    def total(self, per_element: Array) -> Array:
        """Sum over batch elements as NumPyro weighs them."""
        return jnp.sum(scale_and_mask(per_element, self.scale))

    def mean(self, per_element: Array) -> Array:
        """Mean over batch elements as NumPyro weighs them."""
        ones = self._map(lambda fn, x: jnp.ones(fn.batch_shape))
        return self.total(per_element) / self.total(jnp.broadcast_to(ones, per_element.shape))

    def check(self) -> None:
        """Raise if a batch dimension is no plate, or the guide declared the wrong learners."""
        batch_shape = self.fn.batch_shape
        plate_dims = {plate.dim for plate in self.plates}
        for dim in range(-len(batch_shape), 0):
            if batch_shape[dim] > 1 and dim not in plate_dims:
                raise ValueError(
                    f"Expected every batch dimension of energy-based site {self.name!r} to be a "
                    f"plate, got batch shape {tuple(batch_shape)} with no plate at {dim}. An "
                    "enumerated variable upstream needs the log-normalizer of each of its values; "
                    "independent values belong in a plate or in to_event."
                )
        if self.objective is not None:
            check_auxiliary(self.name, self.objective.loss, self.learners)

    def warn_if_untrained(self, of_energy: Set[str], of_potential: Set[str]) -> None:
        """Warn if no optimizer sees the energy's parameters, or no objective trains them.

        Args:
            of_energy: Names of the registered parameters that the energy depends on.
            of_potential: And of those that the energy or the base depends on.
        """
        names = _parameter_names(self.energy.energy)
        if self.objective is None:
            # It warns by itself if a gradient in what it holds constant is asked for.
            self.fn.log_prob(self.value)
        elif not (of_energy if names else of_potential):
            warnings.warn(
                f"No optimizer will see the parameters of site {self.name!r}"
                f"{': ' + ', '.join(names) if names else ''}; register them inside the model with "
                "eqx_module, nnx_module, flax_module or numpyro.param. If they are meant to stay "
                "as they are, say so by a dictionary of objectives without this site.",
                stacklevel=2,
            )

    @property
    def energy(self) -> EnergyBased:
        """Its distribution, without wrappers."""
        energy = find_energy(self.fn)
        assert energy is not None
        return energy

    def _map(self, function: Callable[[EnergyBased, Array], Array]) -> Array:
        return map_energy(self.fn, self.value, function)


class EnergySites(Messenger):
    """Runs in a model: keeps the energy-based sites, or emits a factor at each of them.

    Args:
        objective: One objective for all sites, or a dictionary from a site's name to its own.
        emits: Whether to emit the factors that train the energies, or to keep the sites.
        chains: Values of persistent chains that have moved, by the name of their mutable site,
            which the guide then hides.
    """

    def __init__(
        self, objective: Any, *, emits: bool, chains: Mapping[str, Array] | None = None
    ) -> None:
        super().__init__()
        self.objective = objective
        self.emits = emits
        self.chains = chains or {}
        self.records: list[EnergySite] = []
        self.inputs: dict[str, Any] = {}
        self.latents: set[str] = set()
        self.learners: dict[str, dict[str, Any]] = {}
        self.mutables: set[str] = set()

    def model(self, model: Any) -> Callable[..., Any]:
        """The model with this handler around it."""

        def handled(*args: Any, **kwargs: Any) -> Any:
            with self:
                result = model(*args, **kwargs)
            if not self.emits:
                self._check(lambda: model(*args, **kwargs))
            return result

        return handled

    def guide(self, guide: Any) -> Callable[..., Any]:
        """The guide, watched for declared learners and for energies that are out of place."""

        def handled(*args: Any, **kwargs: Any) -> Any:
            self.learners.clear()
            with _GuideSites(self):
                return guide(*args, **kwargs)

        return handled

    def postprocess_message(self, msg: Any) -> None:
        """Meet a sample site whose value is known by now."""
        if msg["type"] == "mutable":
            self.mutables.add(msg["name"])
        if msg["type"] == "param":
            self.inputs[msg["name"]] = msg["value"]
        if msg["type"] != "sample":
            return
        # Inside the particles no value is kept, for it would outlive their vmap.
        if not self.emits and not msg["is_observed"] and not isinstance(msg["fn"], Delta):
            self.inputs[msg["name"]] = msg["value"]
            self.latents.add(msg["name"])
        energy = find_energy(msg["fn"])
        # With a known log-normalizer it is a distribution like any other.
        if energy is None or energy.log_normalizer is not None:
            return
        site = self._site(msg)
        site.check()
        if not self.emits:
            self.records.append(site)
        elif site.objective is not None:
            # NumPyro scales and masks the factor as it does the site itself.
            loss = site.loss(numpyro.prng_key())
            if energy._validate_args and not_jax_tracer(loss) and not jnp.isfinite(loss).all():
                raise ValueError(
                    f"Expected finite energies at site {site.name!r}, got NaN or infinity."
                )
            numpyro.factor(f"{site.name}$energy", lax.stop_gradient(loss) - loss)

    def _site(self, msg: Any) -> EnergySite:
        name, fn, plates = msg["name"], msg["fn"], tuple(msg["cond_indep_stack"])
        if msg.get("_control_flow_done"):  # The leftmost dimension is the time of a scan.
            dim = -len(fn.batch_shape)
            plates += (CondIndepStackFrame(f"{name}$time", dim, fn.batch_shape[0]),)
        value = lax.stop_gradient(jnp.asarray(msg["value"]))
        per_site = isinstance(self.objective, Mapping)
        objective = self.objective.get(name) if per_site else self.objective
        learners = self.learners.get(name, {})
        return EnergySite(name, fn, value, msg["scale"], plates, objective, learners)

    def _check(self, model: Callable[[], Any]) -> None:
        if isinstance(self.objective, Mapping):
            check_sites(self.objective, {site.name for site in self.records})
        trained = sorted(site.name for site in self.records if site.objective is not None)
        for name in self.learners.keys() - set(trained):
            raise ValueError(
                f"Expected auxiliary(...) for sites with an objective ({trained}), got {name!r}."
            )
        for site, (of_energy, of_potential) in _dependencies(self.records, self.inputs, model):
            for name in sorted(of_potential & self.latents - {site.name}):
                raise ValueError(
                    f"Expected the energy and base of site {site.name!r} to depend on parameters "
                    f"only, got a dependence on the latent variable {name!r}: the log-normalizer "
                    "depends on it too, and inference would be silently wrong. Give "
                    "`log_normalizer` if it is known."
                )
            site.warn_if_untrained(of_energy - self.latents, of_potential - self.latents)


class _GuideSites(Messenger):
    def __init__(self, sites: EnergySites) -> None:
        super().__init__()
        self.sites = sites

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "mutable":
            self.sites.mutables.add(msg["name"])
            # Persistent chains move outside of the stock ELBO, which need not know mutable sites.
            msg["stop"] = msg["name"] in self.sites.chains
        elif msg["type"] == "auxiliary":
            learners = with_values(msg["learners"], self.sites.chains)
            self.sites.learners.setdefault(msg["site"], {}).update(learners)
        elif msg["type"] == "sample" and find_energy(msg["fn"]) is not None:
            raise ValueError(
                "Expected a guide of normalized distributions, got EnergyBased at site "
                f"{msg['name']!r} of the guide. Use it in the model."
            )


def _dependencies(
    sites: list[EnergySite], inputs: dict[str, Any], model: Callable[[], Any]
) -> Iterator[tuple[EnergySite, list[Set[str]]]]:
    """Names of the parameters and latent variables behind the energy and potential of each site.

    The model runs once more, abstractly, as a function of ``inputs``.
    """

    def potentials(**inputs: Any) -> list[list[Array]]:
        with block(), trace() as rerun, seed(rng_seed=0), substitute(data=inputs):
            model()
        energies = [find_energy(rerun[site.name]["fn"]) for site in sites]
        # At a constant value: a value that a latent variable transforms is no harm.
        values = [jnp.zeros(site.fn.batch_shape + site.energy.event_shape) for site in sites]
        return [[e.evaluate(x), e.potential(x)] for e, x in zip(energies, values, strict=True) if e]

    if sites:
        yield from zip(sites, eval_provenance(potentials, **inputs), strict=True)


def _is_distribution(part: Any) -> bool:
    return isinstance(part, Distribution)
