"""What samplers walk on to draw the latent variables of a model."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from jax import Array, lax, random
from numpyro.distributions import Delta, biject_to
from numpyro.distributions.util import scale_and_mask, sum_rightmost
from numpyro.handlers import block, seed, substitute, trace
from numpyro.ops.provenance import eval_provenance

from pyro_ebm.core.packing import Packing
from pyro_ebm.numpyro.distributions import trained_by_objective
from pyro_ebm.numpyro.potentials import starting_values
from pyro_ebm.numpyro.sites import find_energy, map_energy

__all__ = ["Posterior"]

Site = Mapping[str, Any]
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
        unconstrained = {name: _unconstrained(site) for name, site in self.latents.items()}
        self._leave_out_constants(unconstrained)
        self.packing = Packing.sharing(
            plate_dims={dim for _, dim in _shared_plates(self.sites.values())},
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
        prior, likelihood = self._log_densities(position, tilts=False)
        return -(prior + likelihood)

    def log_densities(self, position: Array) -> tuple[Array, Array]:
        """Log-density of the latents before anything tilts it, and of what tilts it.

        The first is that of priors, and of bases of energy priors, over unconstrained space; it
        is normalized. The second is that of observations, minus the energies of energy priors.
        Their sum is minus the :meth:`potential`.
        """
        return self._log_densities(position, tilts=True)

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

    def _log_densities(self, position: Array, *, tilts: bool) -> tuple[Array, Array]:
        num_chain_dims = position.ndim - len(self.packing.plate_shape) - 1
        if num_chain_dims > 0:
            return jax.vmap(lambda one: self._log_densities(one, tilts=tilts))(position)
        unconstrained = self.packing.unpack(position)
        met = self._run(unconstrained, unconstrained=True)
        prior = likelihood = jnp.zeros(position.shape[:-1], position.dtype)
        for name in self.sites:
            log_density = self._total(met[name], _log_prob(met[name]))
            if name not in unconstrained:
                likelihood = likelihood + log_density
                continue
            volume = self.packing.total(_log_volume(met[name], unconstrained[name]))
            prior = prior + log_density + volume
            tilt = _tilt(met[name]) if tilts else None
            if tilt is not None:
                tilt = self._total(met[name], tilt)
                prior, likelihood = prior - tilt, likelihood + tilt
        return prior, likelihood

    def _total(self, site: Site, log_density: Array) -> Array:
        """Sum within each plate element, as NumPyro weighs it but for subsampling."""
        frames = site["cond_indep_stack"]
        subsampling = prod(self._full_size(frame.name) / frame.size for frame in frames)
        scale = 1.0 if site["scale"] is None else site["scale"] / subsampling
        return self.packing.total(scale_and_mask(log_density, scale))

    def _full_size(self, plate: str) -> int:
        return self._plates[plate]["args"][0]

    def _position(self, met: Mapping[str, Site]) -> Array:
        return self.packing.pack({name: _unconstrained(met[name]) for name in self.latents})

    def _leave_out_constants(self, unconstrained: Mapping[str, Array]) -> None:
        """Forget observed sites outside of the latents' plates that know nothing of the latents."""
        shared = _shared_plates(self.latents.values())
        outside = [name for name, site in self.sites.items() if not _plates(site) >= shared]

        def log_probs(**unconstrained: Array) -> dict[str, Array]:
            met = self._run(unconstrained, unconstrained=True)
            return {name: _log_prob(met[name]) for name in outside}

        if outside:
            for name, latents in eval_provenance(log_probs, **unconstrained).items():
                if not latents:
                    del self.sites[name]

    def _check_subsampling(self) -> None:
        shared = {name for name, _ in _shared_plates(self.sites.values())}
        for site in self.sites.values():
            for frame in site["cond_indep_stack"]:
                full_size = self._full_size(frame.name)
                if frame.name not in shared and full_size != frame.size:
                    raise ValueError(
                        f"Expected no subsampling in plate {frame.name!r}, which does not contain "
                        f"all of {list(self.sites)}: what {frame.size} of {full_size} elements "
                        "say of the sites outside is not what all would say."
                    )


def _log_prob(site: Site) -> Array:
    with trained_by_objective():
        return site["fn"].log_prob(site["value"])


def _tilt(site: Site) -> Array | None:
    """What an energy adds to the log-density of its base; None for any other distribution."""
    energy = find_energy(site["fn"])
    if energy is None:
        return None
    if energy.base is None:
        raise ValueError(f"Expected a base at energy-based site {site['name']!r}, got base=None.")
    log_normalizer = energy.log_normalizer() if energy.log_normalizer is not None else 0.0
    return map_energy(
        site["fn"], site["value"], lambda energy, value: -energy.evaluate(value) - log_normalizer
    )


def _unconstrained(site: Site) -> Array:
    return lax.stop_gradient(biject_to(site["fn"].support).inv(site["value"]))


def _log_volume(site: Site, unconstrained: Array) -> Array:
    """Log-determinant of the map from unconstrained space, of each batch element."""
    value = site["value"]
    bijection = biject_to(site["fn"].support)
    log_volume = bijection.log_abs_det_jacobian(unconstrained, value)
    num_batch_dims = jnp.ndim(value) - site["fn"].event_dim
    return sum_rightmost(log_volume, log_volume.ndim - num_batch_dims)


def _plates(site: Site) -> set[tuple[str, int]]:
    """The plates that a site lies in, with their dimensions."""
    return {(frame.name, frame.dim) for frame in site["cond_indep_stack"]}


def _shared_plates(sites: Iterable[Site]) -> set[tuple[str, int]]:
    return set.intersection(*map(_plates, sites))


def _check_latents(latents: Mapping[str, Site]) -> None:
    if not latents:
        raise ValueError("Expected a model with latent variables, got none.")
    for name, site in latents.items():
        if site["fn"].support.is_discrete or isinstance(site["fn"], Delta):
            raise ValueError(
                f"Expected continuous latent variables, got {type(site['fn']).__name__} at site "
                f"{name!r}: its density has no gradient to walk along."
            )
