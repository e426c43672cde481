"""Handlers that record the energy-based sites of a model and add the factors that train them."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jax import Array, lax
from numpyro.distributions import Delta
from numpyro.distributions.util import scale_and_mask
from numpyro.primitives import CondIndepStackFrame, Messenger
from numpyro.util import not_jax_tracer

from pyro_ebm.core.distributions.context import over_batch
from pyro_ebm.core.infer import energy_sites as core
from pyro_ebm.core.model.issues import in_guide, issues_of_latents, issues_of_site
from pyro_ebm.core.numerics import as_real, log_mean_exp
from pyro_ebm.core.samplers.run import ShortRun
from pyro_ebm.numpyro.distributions.bound_energy import is_trainable
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased, without_plates
from pyro_ebm.numpyro.distributions.importance import importance_log_weights
from pyro_ebm.numpyro.infer.meshes import num_parts
from pyro_ebm.numpyro.infer.persistent_chains import with_values
from pyro_ebm.numpyro.model.parameters import TRAINED, copied
from pyro_ebm.numpyro.model.sites import (
    Dependencies,
    find_dependencies,
    find_energy,
    find_mixture,
    has_energy,
    inner_sites,
    is_unnormalized,
    issues_of_untrained,
    map_energy,
    spread_over_value,
    with_counted_context,
)
from pyro_ebm.numpyro.samplers.target import Target

Attached = dict[str, dict[str, Any]]


class EnergySite(core.EnergySite):
    """An energy-based site of a NumPyro model; masks are a part of ``fn``."""

    _gradient = staticmethod(jax.grad)
    _is_known = staticmethod(lambda x: x is not None and not_jax_tracer(x))

    @classmethod
    def of(cls, msg: Any, objective: Any, attached: Attached) -> "EnergySite":
        """Make it from the message of a sample site, and check it."""
        name = msg["name"]
        _check_array(name, msg["value"])
        fn = with_counted_context(spread_over_value(msg))
        energy = find_energy(fn)
        site = cls(
            name=name,
            fn=fn,
            energy=energy,
            value=_constant(msg["value"], energy),
            scale=msg["scale"],
            plates=(*msg["cond_indep_stack"], *_frames(msg, fn.batch_shape)),
            objective=core.objective_of(name, objective),
            attached=attached.get(name, {}),
        )
        site.check()
        return site

    def log_normalizer(self, rng_key: Array, num_samples: int) -> Array:
        """Sum of estimates for all batch elements, from draws of the base; zero without one."""
        if self.energy.base is None:
            warnings.warn(core.without_base(self.name), stacklevel=2)
            return self.total(jnp.zeros(()))
        log_weights = self._log_weights(num_samples, rng_key)
        return self.total(self._map(lambda energy, value: log_mean_exp(log_weights)))

    def _log_weights(self, num_samples: int, rng_key: Array) -> Array:
        return importance_log_weights(rng_key, self.energy, num_samples)

    def warn_if_untrained(self, found: Dependencies, parameters: Set[str]) -> None:
        """Warn if no optimizer updates the energy's parameters, or no objective trains them.

        Args:
            found: Dependencies of the energy and the base.
            parameters: Names of the registered parameters.
        """
        if self.objective is None:
            # It warns by itself if a gradient in its constants is needed.
            self.fn.log_prob(self.value)
            return
        if not any(map(is_trainable, jax.tree.leaves(self.energy.energy))):
            return
        for issue in issues_of_untrained(self.name, found, parameters):
            warnings.warn(issue.message, stacklevel=2)

    def total(self, per_element: Array) -> Array:
        return jnp.sum(scale_and_mask(per_element, self.scale))

    def _map(self, function: Callable[[EnergyBased, Array], Array]) -> Array:
        # Constant after transforms too, which may have parameters.
        def each(fn: EnergyBased, x: Array) -> Array:
            own = without_plates(fn)
            return function(own, over_batch(own, lax.stop_gradient(x)))

        return map_energy(self.fn, self.value, each)


def _check_array(name: str, value: Any) -> None:
    if isinstance(value, list | tuple):
        raise TypeError(f"Expected an array at site {name!r}, got {type(value).__name__}.")


def _constant(value: Any, energy: EnergyBased) -> Array:
    value = as_real(lax.stop_gradient(jnp.asarray(value)))
    codes = Target.as_codes(energy, value)
    # Fractions stay, to be found by the checks.
    return value if not_jax_tracer(value) and bool((codes != value).any()) else codes


def _frames(msg: Any, batch_shape: tuple[int, ...]) -> Iterator[CondIndepStackFrame]:
    """Yield frames of independent dimensions without a plate: of observed values, of time."""
    name, own = msg["name"], msg["fn"].batch_shape
    for dim in range(-len(batch_shape), 0):
        is_time = msg.get("is_scanned", False) and dim == -len(own)
        if is_time or -dim > len(own) or own[dim] != batch_shape[dim]:
            yield CondIndepStackFrame(f"{name}${dim}", dim, batch_shape[dim])


def _mark_inner_sites(msg: Any) -> None:
    """Mark the sites of a ``scan`` or ``cond``."""
    for site in inner_sites(msg):
        site["is_scanned"] = msg["fn"].__name__ == "scan_wrapper"
        site["inner_scale"] = site["scale"]


class SiteRecorder(Messenger):
    """Handler that records the sites of a run outside of the particles, and raises for issues.

    Args:
        objective: One objective for all sites, or a dictionary of objectives by site.
    """

    def __init__(self, objective: Any) -> None:
        super().__init__()
        self.objective = objective
        self.sites: dict[str, EnergySite] = {}
        self.inputs: dict[str, Any] = {}
        self.latents: dict[str, bool] = {}
        self.attached: Attached = {}
        self.mutables: set[str] = set()

    @property
    def trained(self) -> list[EnergySite]:
        """Sites with an objective."""
        return [site for site in self.sites.values() if site.objective is not None]

    def model(self, model: Any) -> Callable[..., Any]:
        """Wrap a model in this handler, and check its sites afterwards."""

        def handled(*args: Any, **kwargs: Any) -> Any:
            with self:
                result = model(*args, **kwargs)
            self._check(lambda: model(*args, **kwargs))
            return result

        return handled

    def guide(self, guide: Any) -> Callable[..., Any]:
        """Wrap a guide in a handler that collects what it attaches."""
        return _GuideSites(self.attached, self.mutables, {}).around(guide)

    def process_message(self, msg: Any) -> None:
        """Refuse an ``attach``."""
        if msg["type"] == "attach":
            core.refuse_attach(msg["site"])

    def postprocess_message(self, msg: Any) -> None:
        """Record a site, a parameter or the name of a ``mutable``."""
        _mark_inner_sites(msg)
        if msg["type"] == "mutable":
            self.mutables.add(msg["name"])
        if msg["type"] in TRAINED:
            self.inputs[msg["name"]] = copied(msg["value"])
        if msg["type"] != "sample":
            return
        name, fn = msg["name"], msg["fn"]
        if not msg["is_observed"] and not isinstance(fn, Delta):
            self.inputs[name] = msg["value"]
            self.latents[name] = fn.support.is_discrete
        for issue in issues_of_site(msg, find_energy(fn), find_mixture(fn)):
            raise ValueError(issue.message)
        # With a known log-normalizer it is a distribution like any other.
        if is_unnormalized(fn):
            self.sites[name] = EnergySite.of(msg, self.objective, self.attached)

    def _check(self, model: Callable[[], Any]) -> None:
        core.check_names(self.objective, self.sites, self.attached)
        if not self.sites:
            return
        for site in self.trained:
            site.check_rows()
        found = find_dependencies(self.sites, self.inputs, model)
        for name, site in self.sites.items():
            for issue in issues_of_latents(name, found[name].potential, self.latents):
                raise ValueError(issue.message)
            constants = self.latents.keys() | self.mutables
            site.warn_if_untrained(found[name], self.inputs.keys() - constants)


class FactorEmitter(Messenger):
    """Handler that adds, at each energy-based site, the factor that trains the energy.

    It runs inside of the particles and keeps no value, which would outlive their ``vmap``.

    Args:
        objective: One objective for all sites, or a dictionary of objectives by site.
        chains: Values of persistent chains that have moved, by the name of their ``mutable`` site,
            which the guide then hides.
    """

    def __init__(self, objective: Any, chains: Mapping[str, ShortRun]) -> None:
        super().__init__()
        self.objective = objective
        self.chains = chains
        self.attached: Attached = {}

    def guide(self, guide: Any) -> Callable[..., Any]:
        """Wrap a guide in a handler that collects what it attaches."""
        return _GuideSites(self.attached, set(), self.chains).around(guide)

    def postprocess_message(self, msg: Any) -> None:
        """Add the factor after an energy-based site."""
        _mark_inner_sites(msg)
        if msg["type"] != "sample" or not is_unnormalized(msg["fn"]):
            return
        site = EnergySite.of(msg, self.objective, self.attached)
        if site.objective is not None:
            # NumPyro masks the factor as it does the site, and scales it by what is open here.
            site.warn_of_parts(num_parts())
            loss = site.loss(numpyro.prng_key()).value
            constant = lax.stop_gradient(loss)
            # Inside of `jit`, where nothing can raise, it is NaN.
            if site.energy._validate_args and not_jax_tracer(constant):
                if not jnp.isfinite(constant).all():
                    raise core.not_finite(site.name)
            inner = msg.get("inner_scale")
            with numpyro.handlers.scale(scale=1.0 if inner is None else inner):
                numpyro.factor(f"{site.name}$energy", constant - loss)


class _GuideSites(Messenger):
    """Handler that collects what a guide attaches, and hides chains that have moved already."""

    def __init__(
        self, attached: Attached, mutables: set[str], chains: Mapping[str, ShortRun]
    ) -> None:
        super().__init__()
        self.attached = attached
        self.mutables = mutables
        self.chains = chains

    def around(self, guide: Any) -> Callable[..., Any]:
        def handled(*args: Any, **kwargs: Any) -> Any:
            self.attached.clear()
            with self:
                return guide(*args, **kwargs)

        return handled

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "mutable":
            self.mutables.add(msg["name"])
            # Persistent chains move outside of the stock ELBO, which need not know mutable sites.
            msg["stop"] = msg["name"] in self.chains
        elif msg["type"] == "attach":
            parts = with_values(msg["parts"], self.chains)
            self.attached.setdefault(msg["site"], {}).update(parts)
        elif msg["type"] == "sample" and has_energy(msg["fn"]):
            raise ValueError(in_guide(msg["name"]).message)
