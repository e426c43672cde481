"""Posterior of a NumPyro model's latent variables."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jax import Array, lax, random
from numpyro.distributions import Delta, biject_to
from numpyro.distributions.util import scale_and_mask
from numpyro.handlers import block, seed, substitute, trace
from numpyro.primitives import _PYRO_STACK, Messenger

from pyro_ebm.core.model import posterior as core
from pyro_ebm.core.model.issues import issues_of_latents
from pyro_ebm.core.model.posterior import with_sample
from pyro_ebm.core.model.sites import Site, check_sites
from pyro_ebm.numpyro.distributions.bound_energy import TrainedByObjective
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.distributions.supports import support_of
from pyro_ebm.numpyro.model.parameters import TRAINED, copied
from pyro_ebm.numpyro.model.provenance import find_provenance
from pyro_ebm.numpyro.model.sites import (
    find_dependencies,
    find_energy,
    find_mixture,
    inner_sites,
    lacks_constant,
    log_density,
    map_energy,
    spread_over_value,
)
from pyro_ebm.numpyro.samplers.target import initial_values


class Posterior(core.Posterior):
    """Posterior of a NumPyro model, under any handlers that give parameters their values."""

    _find_energy = staticmethod(find_energy)
    _lacks_constant = staticmethod(lacks_constant)
    _map_energy = staticmethod(map_energy)
    _log_density = staticmethod(log_density)
    _biject_to = staticmethod(biject_to)
    _support_of = staticmethod(support_of)
    _constant = staticmethod(lax.stop_gradient)

    def __init__(
        self,
        rng_key: Array,
        model: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = lambda: model(*args, **(kwargs or {}))
        self._subsamples: dict[str, Array] = {}
        # Outer handlers give parameters their values, and see nothing else of this run.
        with (
            self.hidden(),
            _Inside(),
            trace() as met,
            _Spread(),
            initialized(),
            seed(rng_seed=rng_key),
        ):
            self._model()
        self._plates = {name: site for name, site in met.items() if site["type"] == "plate"}
        self._subsamples = {name: site["value"] for name, site in self._plates.items()}
        parameters = {n: s["value"] for n, s in met.items() if s["type"] in TRAINED}
        self._constants = lax.stop_gradient(parameters) | self._subsamples
        self.sites = {name: site for name, site in met.items() if site["type"] == "sample"}
        check_sites(self.sites, Delta, find_mixture)
        unconstrained = self._unconstrained(self.sites)
        self._remove_constants(unconstrained)
        self._arrange(unconstrained)

    def check_log_normalizers(self) -> None:
        """Raise if an unknown log-normalizer depends on a latent variable."""
        unknown = [name for name, energy in self.energies.items() if energy.log_normalizer is None]
        values = {name: site["value"] for name, site in self.latents.items()}
        found = find_dependencies(unknown, values, self._model) if unknown else {}
        for name, behind in found.items():
            for issue in issues_of_latents(name, behind.normalizer, dict.fromkeys(values, False)):
                raise ValueError(issue.message)

    def starts(self, rng_key: Array, num_chains: int) -> Array:
        """Independent positions like ``start``, one for each chain in front."""
        keys = random.split(rng_key, num_chains)
        return jax.vmap(lambda key: self._position(self._run({}, key)))(keys)

    def position(self, values: Mapping[str, Array]) -> Array:
        return self._position(self._run(values))

    def values(self, position: Array) -> dict[str, Array]:
        sites = self._run(self.layout.unpack(position), unconstrained=True)
        return {name: sites[name]["value"] for name in self.latents}

    def log_joint(self, values: Mapping[str, Array]) -> Array:
        with TrainedByObjective():
            return self._joint(self._run(values))

    def per_element(self, site: Site, numbers: Array) -> Array:
        scale = 1.0
        if site["scale"] is not None:
            scale = site["scale"] / self._subsampling_factor(site)
        return self.layout.total(scale_and_mask(numbers, scale))

    def hidden(self) -> ExitStack:
        """Hide messages from outer handlers, but for parameters; use this subsample."""
        stack = ExitStack()
        stack.enter_context(block(expose_types=[*TRAINED]))
        stack.enter_context(substitute(data=self._subsamples))
        return stack

    def plates(self) -> dict[str, Any]:
        """Plates of the latents by name, with the model's indices, to emit the latents in."""
        frames = {f.name: f for site in self.latents.values() for f in site["cond_indep_stack"]}
        with substitute(data=self._subsamples):
            return {
                name: numpyro.plate(name, self._full_size(f), f.size, dim=f.dim)
                for name, f in frames.items()
            }

    def _run(
        self,
        values: Mapping[str, Array],
        rng_key: Array | None = None,
        *,
        unconstrained: bool = False,
    ) -> dict[str, Any]:
        """Messages of all sites, with these values of latents or initial ones."""

        def value_of(site: Any) -> Any:
            value = values.get(site["name"], copied(self._constants.get(site["name"])))
            if unconstrained and site["name"] in values:
                return biject_to(support_of(site["fn"]))(value)
            return value

        key = rng_key if rng_key is not None else random.key(0)
        with block(), trace() as met, _Spread(), initialized(), seed(rng_seed=key):
            with substitute(substitute_fn=value_of):
                self._model()
        return met

    def _log_densities(self, position: Array, *, apart: bool) -> tuple[Array, Array]:
        if position.ndim > len(self.layout.plate_shape) + 1:
            return jax.vmap(lambda one: self._log_densities(one, apart=apart))(position)
        unconstrained = self.layout.unpack(position)
        with TrainedByObjective():
            met = self._run(unconstrained, unconstrained=True)
            zeros = jnp.zeros(position.shape[:-1], position.dtype)
            return self._split(met, unconstrained, zeros, apart=apart)

    def _full_size(self, frame: Any) -> int:
        # Those inside of a `scan` or `cond` are not here, and have no subsamples.
        return self._plates[frame.name]["args"][0] if frame.name in self._plates else frame.size

    def _index(self, frame: Any) -> Array:
        return self._subsamples[frame.name]

    def _remove_constants(self, unconstrained: Mapping[str, Array]) -> None:
        """Remove observed sites outside of the latents' plates that depend on no latent."""
        outside = self._outside_of_plates()

        def log_probs(**unconstrained: Array) -> dict[str, Array]:
            met = self._run(unconstrained, unconstrained=True)
            return {name: log_density(met[name]) for name in outside}

        if outside:
            for name, latents in find_provenance(log_probs, **unconstrained).items():
                if not latents:
                    del self.sites[name]


class _Inside(Messenger):
    """Handler that keeps inside what a model writes, and the initial values of modules with states.

    ``SVI`` takes parameters from a guide to the model, but not the states that belong to them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.initial: set[str] = set()

    def process_message(self, msg: Any) -> None:
        if msg["type"] not in TRAINED or self._is_supplied(msg["name"]):
            return
        module = msg["name"].partition("$")[0]
        if msg["type"] == "mutable":
            self.initial.add(module)
        # Modules first ask for a value without an initial one.
        msg["stop"] = module in self.initial or any(arg is None for arg in msg["args"])

    def postprocess_message(self, msg: Any) -> None:
        if msg["type"] == "mutable" and msg["value"] is not msg["args"][0]:
            msg["value"] = copied(msg["value"])
        for site in inner_sites(msg):
            if site["type"] == "plate" and site["args"][1] is not None:
                raise ValueError(
                    f"Expected no `subsample_size` of plate {site['name']!r} inside of `scan` or "
                    "`cond`, where each run would draw other subsamples, got one."
                )

    def _is_supplied(self, name: str) -> bool:
        outer = _PYRO_STACK[: _PYRO_STACK.index(self)]
        handlers = [handler for handler in outer if isinstance(handler, substitute)]
        return any(it.substitute_fn is not None or name in (it.data or {}) for it in handlers)


class _Spread(Messenger):
    """Handler that gives sites the batch shape of their values."""

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample":
            msg["fn"] = spread_over_value(msg)
            msg["kwargs"] = {**msg["kwargs"], "sample_shape": ()}  # As a plate does.


def initialized() -> substitute:
    """Make a handler that gives energies initial values in place of draws, also in `scan`."""
    return substitute(substitute_fn=_initial_value)


def _initial_value(site: Any) -> Any:
    if site["type"] != "sample" or site["value"] is not None or find_energy(site["fn"]) is None:
        return None
    fn, options = with_sample(site["fn"], _draw), site["kwargs"]
    return fn.sample(options["rng_key"], options["sample_shape"])


def _draw(energy: EnergyBased, key: Array, sample_shape: Any = ()) -> Array:
    return initial_values(key, energy, sample_shape)
