"""What samplers walk on to draw the latent variables of a model."""

from collections.abc import Mapping
from contextlib import ExitStack
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jax import Array, lax, random
from numpyro.distributions import Delta, biject_to
from numpyro.distributions.util import scale_and_mask
from numpyro.handlers import block, seed, substitute, trace
from numpyro.ops.provenance import eval_provenance

from pyro_ebm.core.model.layout import Packing
from pyro_ebm.numpyro.model.densities import (
    Site,
    log_density,
    log_volume,
    plates_of,
    scoring,
    shared_plates,
    tilt,
    unconstrained_value,
)
from pyro_ebm.numpyro.samplers.target import starting_values

__all__ = ["Posterior"]

_PARAMETERS = ("param", "mutable")


class Posterior:
    """The latent variables of a model, given its arguments and one choice of subsamples.

    A *position* holds all of them, unconstrained: shape ``(*chains, *plate_shape, size)``. Where
    every latent lies in the same plates, and every observation that depends on one too, each
    element of these plates is a target of its own, with a potential of its own. A latent outside
    of a plate ties the elements of that plate together: they are one target then. Subsampling
    does not weigh the densities: the elements that were drawn are known no better for it.

    Parameters are constants, those of energies too. Densities of energy-based sites leave out
    their log-normalizers, on which the posterior does not depend.

    Args:
        rng_key: Random key.
        model: A NumPyro model, vectorised over its plates, under whatever handlers give it the
            values of its parameters.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Attributes:
        sites: Messages of the sites that matter by name, as the model sent them: latent ones,
            and observed ones that may depend on them.
        plate_dims: Dimensions of the plates whose elements are independent.
        packing: Where each latent lies in a position.
        start: Position of draws from the priors, and of starting values of energy priors.

    Raises:
        ValueError: If there is no latent; if one is discrete or a point mass; or if a plate is
            subsampled that some of these sites lie outside of.
    """

    def __init__(
        self,
        rng_key: Array,
        model: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = lambda: model(*args, **(kwargs or {}))
        self._subsamples: dict[str, Array] = {}
        # Handlers outside give parameters their values, and see nothing else of what runs here.
        with self.hidden(), starting_values(), trace() as met, seed(rng_seed=rng_key):
            self._model()
        self._plates = {name: site for name, site in met.items() if site["type"] == "plate"}
        self._subsamples = {name: site["value"] for name, site in self._plates.items()}
        parameters = {n: s["value"] for n, s in met.items() if s["type"] in _PARAMETERS}
        self._constants = lax.stop_gradient(parameters) | self._subsamples
        self.sites = {name: site for name, site in met.items() if site["type"] == "sample"}
        _check_latents(self.latents)
        unconstrained = {name: unconstrained_value(site) for name, site in self.latents.items()}
        self._leave_out_constants(unconstrained)
        self.plate_dims = sorted(dim for _, dim in shared_plates(self.sites.values()))
        self.packing = Packing.sharing(
            plate_dims=self.plate_dims,
            depth=max(len(site["fn"].batch_shape) for site in self.sites.values()),
            batch_shapes={n: tuple(site["fn"].batch_shape) for n, site in self.latents.items()},
            shapes={name: tuple(value.shape) for name, value in unconstrained.items()},
        )
        self.start = self.packing.pack(unconstrained)
        self._check_subsampling()

    @property
    def latents(self) -> dict[str, Site]:
        """Messages of the latent sites."""
        return {name: site for name, site in self.sites.items() if not site["is_observed"]}

    def starts(self, rng_key: Array, num_chains: int) -> Array:
        """Independent positions such as ``start``, shape ``(num_chains, *plate_shape, size)``."""
        keys = random.split(rng_key, num_chains)
        return jax.vmap(lambda key: self._position(self._run({}, key)))(keys)

    def position(self, values: Mapping[str, Array]) -> Array:
        """Position of given values of the latents, of the shapes that the model has."""
        return self._position(self._run(values))

    def values(self, position: Array) -> dict[str, Array]:
        """Values of the latents at a position without chains, of the shapes that the model has."""
        sites = self._run(self.packing.unpack(position), unconstrained=True)
        return {name: sites[name]["value"] for name in self.latents}

    def potential(self, position: Array) -> Array:
        """Minus the log-density of latents and observations, over unconstrained space.

        Args:
            position: Shape ``(*chains, *plate_shape, size)``.

        Returns:
            Shape ``(*chains, *plate_shape)``.
        """
        prior, rest = self._log_densities(position, apart=False)
        return -(prior + rest)

    def log_densities(self, position: Array) -> tuple[Array, Array]:
        """Log-density of the latents before anything tilts it, and of what tilts it.

        The first is that of priors, and of bases of energy priors, over unconstrained space; it
        is normalized. The second is that of observations, minus the energies of energy priors.
        Their sum is minus the :meth:`potential`.
        """
        return self._log_densities(position, apart=True)

    def log_joint(self, values: Mapping[str, Array]) -> Array:
        """Log-density of latents and observations at values of the latents, as they are.

        Args:
            values: Of the shapes that the model has.

        Returns:
            Shape that broadcasts with ``(*plate_shape,)``.
        """
        with scoring():
            met = self._run(values)
            densities = [self.per_element(met[n], log_density(met[n])) for n in self.sites]
        return jnp.stack(jnp.broadcast_arrays(*densities)).sum(0)

    def per_element(self, site: Site, numbers: Array) -> Array:
        """Sum, in each plate element, of a number for each batch element of a site.

        They are weighed and masked as NumPyro does with log-densities, but for subsampling.
        """
        frames = site["cond_indep_stack"]
        factor = prod(self._full_size(frame.name) / frame.size for frame in frames)
        scale = 1.0 if site["scale"] is None else site["scale"] / factor
        return self.packing.total(scale_and_mask(numbers, scale))

    def hidden(self) -> ExitStack:
        """Context in which nobody outside sees what runs, except for its parameters.

        Subsamples are those of the posterior.
        """
        stack = ExitStack()
        stack.enter_context(block(expose_types=[*_PARAMETERS]))
        stack.enter_context(substitute(data=self._subsamples))
        return stack

    def plates(self) -> dict[str, Any]:
        """The plates of the latents, by name, with the indices that they had in the model.

        To be entered where the latents are emitted.
        """
        frames = {f.name: f for site in self.latents.values() for f in site["cond_indep_stack"]}
        with substitute(data=self._subsamples):
            return {
                name: numpyro.plate(name, self._full_size(name), f.size, dim=f.dim)
                for name, f in frames.items()
            }

    def _run(
        self,
        values: Mapping[str, Array],
        rng_key: Array | None = None,
        *,
        unconstrained: bool = False,
    ) -> dict[str, Any]:
        """Messages of all sites, latents having these values or starting values."""

        def value_of(site: Any) -> Any:
            value = values.get(site["name"], self._constants.get(site["name"]))
            if unconstrained and site["name"] in values:
                return biject_to(site["fn"].support)(value)
            return value

        key = rng_key if rng_key is not None else random.key(0)
        with block(), starting_values(), trace() as met, seed(rng_seed=key):
            with substitute(substitute_fn=value_of):
                self._model()
        return met

    def _log_densities(self, position: Array, *, apart: bool) -> tuple[Array, Array]:
        if position.ndim > len(self.packing.plate_shape) + 1:
            return jax.vmap(lambda one: self._log_densities(one, apart=apart))(position)
        unconstrained = self.packing.unpack(position)
        prior = rest = jnp.zeros(position.shape[:-1], position.dtype)
        with scoring():
            met = self._run(unconstrained, unconstrained=True)
            for name in self.sites:
                site_density = self.per_element(met[name], log_density(met[name]))
                if name not in unconstrained:
                    rest = rest + site_density
                    continue
                volume = self.packing.total(log_volume(met[name], unconstrained[name]))
                prior = prior + site_density + volume
                tilted = tilt(met[name]) if apart else None
                if tilted is not None:
                    tilted = self.per_element(met[name], tilted)
                    prior, rest = prior - tilted, rest + tilted
        return prior, rest

    def _full_size(self, plate: str) -> int:
        return self._plates[plate]["args"][0]

    def _position(self, met: Mapping[str, Site]) -> Array:
        return self.packing.pack({name: unconstrained_value(met[name]) for name in self.latents})

    def _leave_out_constants(self, unconstrained: Mapping[str, Array]) -> None:
        """Forget observed sites outside of the latents' plates that know nothing of the latents."""
        shared = shared_plates(self.latents.values())
        outside = [name for name, site in self.sites.items() if not plates_of(site) >= shared]

        def log_probs(**unconstrained: Array) -> dict[str, Array]:
            met = self._run(unconstrained, unconstrained=True)
            return {name: log_density(met[name]) for name in outside}

        if outside:
            for name, latents in eval_provenance(log_probs, **unconstrained).items():
                if not latents:
                    del self.sites[name]

    def _check_subsampling(self) -> None:
        shared = {name for name, _ in shared_plates(self.sites.values())}
        for site in self.sites.values():
            for frame in site["cond_indep_stack"]:
                full_size = self._full_size(frame.name)
                if frame.name not in shared and full_size != frame.size:
                    raise ValueError(
                        f"Expected no subsampling in plate {frame.name!r}, which does not contain "
                        f"all of {list(self.sites)}: what {frame.size} of {full_size} elements "
                        "say of the sites outside is not what all would say."
                    )


def _check_latents(latents: Mapping[str, Site]) -> None:
    if not latents:
        raise ValueError("Expected a model with latent variables, got none.")
    for name, site in latents.items():
        if site["fn"].support.is_discrete or isinstance(site["fn"], Delta):
            raise ValueError(
                f"Expected continuous latent variables, got {type(site['fn']).__name__} at site "
                f"{name!r}: its density has no gradient to walk along."
            )
