"""Energy-based sites of a model: found, checked, and given the gradient of their objective."""

import warnings
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpyro
from jax import Array, lax
from numpyro.distributions import Delta
from numpyro.distributions.util import scale_and_mask
from numpyro.primitives import CondIndepStackFrame, Messenger
from numpyro.util import not_jax_tracer

from pyro_ebm.core.checks import check_auxiliary, check_sites
from pyro_ebm.core.infer.metrics import TrustedRange, recorded_figures
from pyro_ebm.core.model.issues import (
    doubly_intractable,
    implicit_latent,
    in_guide,
    in_mixture,
    unregistered,
)
from pyro_ebm.core.numerics import log_mean_exp
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.infer.persistent_chains import with_values
from pyro_ebm.numpyro.model.sites import (
    HOW_TO_REGISTER,
    Dependencies,
    find_dependencies,
    find_energy,
    find_mixture,
    has_implicit_base,
    map_energy,
)

__all__ = ["EnergySite", "EnergySites"]


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

    def loss(self, rng_key: Array) -> tuple[Array, dict[str, Callable[[], Array]]]:
        """The objective's loss of each batch element, and the figures that it recorded."""
        with recorded_figures() as figures:
            loss = self._map(lambda fn, x: self.objective.loss(rng_key, fn, x, **self.learners))
        return loss, figures

    def health(self, rng_key: Array) -> dict[str, Array]:
        """The objective's mean over batch elements, and the figures that it recorded."""
        loss, figures = self.loss(rng_key)
        read = {name: figure() for name, figure in figures.items()}
        return {"objective": self.mean(loss), **read}

    def check_range(
        self, trusted: TrustedRange, loss: Array, figures: Mapping[str, Callable[[], Array]]
    ) -> Array:
        """The loss; if it or the energies in it are out of range, NaN or, eagerly, an error."""
        extreme = jnp.abs(lax.stop_gradient(loss)).max()
        scale = figures["energy_scale"]() if "energy_scale" in figures else jnp.zeros(())
        if not_jax_tracer(extreme):
            trusted.check(self.name, float(extreme), float(scale))
        return jnp.where(trusted.contains(extreme, scale), loss, jnp.nan)

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

    def warn_if_untrained(self, found: Dependencies, parameters: Set[str]) -> None:
        """Warn if no optimizer sees the energy's parameters, or no objective trains them.

        Args:
            found: What the energy and the base depend on.
            parameters: Names of the registered parameters.
        """
        if self.objective is None:
            # It warns by itself if a gradient in what it holds constant is asked for.
            self.fn.log_prob(self.value)
        elif not parameters & (found.energy if found.arrays else found.potential):
            advice = (
                f"{HOW_TO_REGISTER}; if they are meant to stay as they are, say so by a dictionary "
                "of objectives without this site"
            )
            warnings.warn(unregistered(self.name, found.arrays, advice).message, stacklevel=2)

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
        trusted: What losses and energies must not leave.
        emits: Whether to emit the factors that train the energies, or to keep the sites.
        chains: Values of persistent chains that have moved, by the name of their mutable site,
            which the guide then hides.
    """

    def __init__(
        self,
        objective: Any,
        trusted: TrustedRange,
        *,
        emits: bool,
        chains: Mapping[str, Array] | None = None,
    ) -> None:
        super().__init__()
        self.objective = objective
        self.trusted = trusted
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
        mixture = find_mixture(msg["fn"])
        if mixture is not None:
            raise ValueError(in_mixture(msg["name"], mixture).message)
        energy = find_energy(msg["fn"])
        if has_implicit_base(msg["fn"]) and not msg["is_observed"]:
            raise ValueError(implicit_latent(msg["name"]).message)
        # With a known log-normalizer it is a distribution like any other.
        if energy is None or energy.log_normalizer is not None:
            return
        site = self._site(msg)
        site.check()
        if not self.emits:
            self.records.append(site)
        elif site.objective is not None:
            # NumPyro scales and masks the factor as it does the site itself.
            loss, figures = site.loss(numpyro.prng_key())
            if energy._validate_args:
                loss = site.check_range(self.trusted, loss, figures)
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
        if not self.records:
            return
        found = find_dependencies([site.name for site in self.records], self.inputs, model)
        for site in self.records:
            for latent in sorted(found[site.name].potential & self.latents - {site.name}):
                raise ValueError(doubly_intractable(site.name, latent).message)
            site.warn_if_untrained(found[site.name], self.inputs.keys() - self.latents)


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
        elif msg["type"] == "sample" and (find_energy(msg["fn"]) or find_mixture(msg["fn"])):
            raise ValueError(in_guide(msg["name"]).message)
