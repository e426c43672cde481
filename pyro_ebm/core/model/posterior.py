"""Posterior of a model's latent variables as a target for samplers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from math import prod
from typing import Any, ClassVar, NamedTuple

from array_api_compat import array_namespace

from pyro_ebm.core.distributions.energy_based import AbstractEnergyBased, scaled_energy
from pyro_ebm.core.model.layout import PlateLayout
from pyro_ebm.core.model.sites import Site, check_subsampling, plates_of, shared_plates


class Rows(NamedTuple):
    """Rows of the data behind the elements of the latents' plates.

    Attributes:
        number: Rows in all: the elements of these plates without subsampling.
        index: Of each element at hand, shape ``plate_shape``.
        around: Names of the plates that are open around the model, for example for particles.
    """

    number: int
    index: Any
    around: list[str]


class Posterior(ABC):
    """Latent variables of a model, given its arguments and one choice of subsamples.

    A *position* holds all of them, unconstrained: shape ``(*chains, *plate_shape, size)``. If
    every latent is in the same plates, and every observation that depends on one too, each element
    of these plates is a target of its own, with a potential of its own. A latent outside of a plate
    ties the elements of that plate together: they are one target then. Densities are not rescaled
    for subsampling: the posterior of an element is the same in a subsample.

    Parameters are constants, those of energies too. Densities of energy-based sites leave out
    their log-normalizers, on which the posterior does not depend.

    Args:
        model: A model, vectorized over its plates.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Attributes:
        sites: Messages of the relevant sites by name: latent ones, and observed ones that may
            depend on them.
        plate_dims: Dimensions of the plates with independent elements.
        layout: Place of each latent in a position.
        start: Position of draws from the priors, and of initial values of energy priors.

    Raises:
        ValueError: If there is no latent; if one is discrete or a point mass; or if a plate is
            subsampled that does not contain all of these sites.
    """

    # Functions of the host on a distribution, or on the message of a site.
    _find_energy: ClassVar[Any]
    _lacks_constant: ClassVar[Any]
    _map_energy: ClassVar[Any]
    _log_density: ClassVar[Any]
    _biject_to: ClassVar[Any]
    _constant: ClassVar[Any]
    _support_of: ClassVar[Any]
    # Indices in the plates of the model, by name.
    _subsamples: dict[str, Any]

    sites: dict[str, Any]
    plate_dims: list[int]
    layout: PlateLayout
    start: Any

    @property
    def latents(self) -> dict[str, Site]:
        """Messages of the latent sites."""
        return {name: site for name, site in self.sites.items() if not site["is_observed"]}

    @property
    def energies(self) -> dict[str, Any]:
        """Energy-based distributions of the sites, without wrappers."""
        found = {name: self._find_energy(site["fn"]) for name, site in self.sites.items()}
        return {name: energy for name, energy in found.items() if energy is not None}

    def check_shapes(self, of_guide: Mapping[str, Any]) -> None:
        """Raise if a guide draws other numbers of values: each has a log-normalizer."""
        for name, site in self.latents.items():
            shape, own = tuple(of_guide[name]), tuple(site["value"].shape)
            if prod(shape) != prod(own):
                raise ValueError(
                    f"Expected values of shape {own} at site {name!r} of the guide, as in the "
                    f"model, got {shape}: are its plates those of the model?"
                )

    @abstractmethod
    def position(self, values: Mapping[str, Any]) -> Any:
        """Position of values of the latents, of the shapes in the model."""

    @abstractmethod
    def values(self, position: Any) -> dict[str, Any]:
        """Values of the latents at a position without chains, of the shapes in the model."""

    @abstractmethod
    def log_joint(self, values: Mapping[str, Any]) -> Any:
        """Log-density of latents and observations; broadcasts with ``(*chains, *plate_shape)``.

        Values are constrained, of the shapes in the model; on Pyro also with chains and padding
        in front.
        """

    @abstractmethod
    def per_element(self, site: Site, numbers: Any) -> Any:
        """Sum the numbers of a site's batch elements within each plate element.

        They are scaled and masked as the host does with log-densities, but for subsampling.
        """

    def rows(self) -> Rows:
        """Find the rows of the data that the elements of the plates are.

        Raises:
            ValueError: If no plate of the model is around all latents and their observations.
        """
        frames = {f.dim: f for site in self.latents.values() for f in site["cond_indep_stack"]}
        own = [frames[dim] for dim in self.plate_dims]
        around = [frame.name for frame in own if frame.name not in self._subsamples]
        if len(around) == len(own):
            raise ValueError(
                f"Expected the latent variables {list(self.latents)} in a plate of the data, as "
                "rows whose chains can be kept apart, got none around all of them."
            )
        number, index = 1, 0
        for frame in own:
            indices, size = self._index(frame), self._full_size(frame)
            xp = array_namespace(indices)
            number *= size
            index = index * size + xp.reshape(indices, (-1, *(1 for _ in range(-frame.dim - 1))))
        return Rows(number, xp.reshape(index, self.layout.plate_shape), around)

    def per_data_point(
        self, name: str, number: Any, plate_dims: list[int], *, is_scaled: bool
    ) -> Any:
        """Give a number to each batch element of a site, and sum it in each element of plates."""
        site = self.sites[name] if is_scaled else self._unscaled(self.sites[name])
        numbers = self._map_energy(site["fn"], site["value"], lambda energy, value: number)
        return self.layout.sum_over_others(self.per_element(site, numbers), plate_dims)

    def potential(self, position: Any) -> Any:
        """Minus the log-density of latents and observations, over unconstrained space.

        From shape ``(*chains, *plate_shape, size)`` to ``(*chains, *plate_shape)``.
        """
        prior, rest = self._log_densities(position, apart=False)
        return -(prior + rest)

    def log_densities(self, position: Any) -> tuple[Any, Any]:
        """Split minus the :meth:`potential` into a normalized part and the rest.

        The first is the log-density of priors, and of bases of energy priors, over unconstrained
        space, without the scales of handlers. The second is the log-density of observations minus
        the energies of energy priors, and what scales add to priors.
        """
        return self._log_densities(position, apart=True)

    @abstractmethod
    def _log_densities(self, position: Any, *, apart: bool) -> tuple[Any, Any]: ...

    @abstractmethod
    def _full_size(self, frame: Any) -> int:
        """Size of a plate without subsampling."""

    @abstractmethod
    def _index(self, frame: Any) -> Any:
        """Return the indices of the elements of a plate among all."""

    def _position(self, met: Mapping[str, Site]) -> Any:
        return self.layout.pack(self._unconstrained(met))

    def _unconstrained(self, met: Mapping[str, Site]) -> dict[str, Any]:
        """Unconstrained values of the latents, as constants."""
        values = {}
        for name in self.latents:
            bijection = self._biject_to(self._support_of(met[name]["fn"]))
            values[name] = self._constant(bijection.inv(met[name]["value"]))
        return values

    def _log_volume(self, site: Site, unconstrained: Any) -> Any:
        """Log-determinant of the map from unconstrained space, for each batch element."""
        fn, value = site["fn"], site["value"]
        log_volume = self._biject_to(self._support_of(fn)).log_abs_det_jacobian(
            unconstrained, value
        )
        axes = tuple(range(value.ndim - fn.event_dim, log_volume.ndim))
        return array_namespace(log_volume).sum(log_volume, axis=axes) if axes else log_volume

    def _joint(self, met: Mapping[str, Site]) -> Any:
        """Sum the log-densities of messages; guides may draw latents outside of supports."""
        densities = {name: self._log_density(met[name]) for name in self.sites}
        for name in self.latents:
            support = self._support_of(met[name]["fn"])
            densities[name] = _zero_outside(support, met[name]["value"], densities[name])
        parts = [self.per_element(met[name], density) for name, density in densities.items()]
        xp = array_namespace(*parts)
        return xp.sum(xp.stack(xp.broadcast_arrays(*parts)), axis=0)

    def _split(
        self, met: Mapping[str, Site], unconstrained: Mapping[str, Any], zeros: Any, *, apart: bool
    ) -> tuple[Any, Any]:
        """Sum the log-densities of messages over unconstrained space, of latents and of others.

        Energies, and scales of handlers, are ``apart`` from what latents are drawn from, among the
        others.
        """
        prior = rest = zeros
        for name in self.sites:
            density = self._log_density(met[name])
            site_density = self.per_element(met[name], density)
            if name not in unconstrained:
                rest = rest + site_density
                continue
            volume = self.layout.total(self._log_volume(met[name], unconstrained[name]))
            if not apart:
                prior = prior + site_density + volume
                continue
            own = self.per_element(self._unscaled(met[name]), density)
            prior, rest = prior + own + volume, rest + (site_density - own)
            factor = self._energy_log_factor(met[name])
            if factor is not None:
                factor = self.per_element(self._unscaled(met[name]), factor)
                prior, rest = prior - factor, rest + factor
        return prior, rest

    def _unscaled(self, site: Site) -> Site:
        """Return the message of a site without the scale of handlers: draws of it have none."""
        return {**site, "scale": self._subsampling_factor(site)}

    def _energy_log_factor(self, site: Site) -> Any:
        """Log-density minus that of the base; None where no energy is."""
        energy = self._find_energy(site["fn"])
        if energy is None:
            return None
        if energy.base is None:
            raise ValueError(
                f"Expected a base at energy-based site {site['name']!r}, got base=None."
            )
        log_normalizer = energy.log_normalizer() if energy.log_normalizer is not None else 0.0
        return self._map_energy(
            site["fn"], site["value"], lambda fn, value: -scaled_energy(fn, value) - log_normalizer
        )

    def _arrange(self, unconstrained: Mapping[str, Any]) -> None:
        """Lay out the latents, once ``sites`` are final."""
        latents = self.latents
        self.plate_dims = sorted(dim for _, dim in shared_plates(self.sites.values()))
        self.layout = PlateLayout.sharing(
            plate_dims=self.plate_dims,
            depth=max(len(site["fn"].batch_shape) for site in self.sites.values()),
            batch_shapes={name: tuple(site["fn"].batch_shape) for name, site in latents.items()},
            shapes={name: tuple(value.shape) for name, value in unconstrained.items()},
        )
        self.start = self.layout.pack(unconstrained)
        check_subsampling(self.sites, self._full_size)

    def _outside_of_plates(self) -> list[str]:
        """Names of sites that are not in all plates of the latents."""
        shared = shared_plates(self.latents.values())
        return [name for name, site in self.sites.items() if not plates_of(site) >= shared]

    def _subsampling_factor(self, site: Site) -> float:
        return prod(self._full_size(frame) / frame.size for frame in site["cond_indep_stack"])


def _zero_outside(support: Any, value: Any, density: Any) -> Any:
    """Replace the log-densities of numbers that are out of bounds by minus infinity.

    Formulas of the hosts go on beyond the bounds of an exponential, among others.
    """
    element = support
    while hasattr(element, "reinterpreted_batch_ndims"):
        element = element.base_constraint
    if element.event_dim:  # Equations, such as a sum of one, hold up to rounding.
        return density
    xp = array_namespace(density)
    return xp.where(support.check(value), density, xp.full_like(density, -math.inf))


def with_sample(fn: Any, sample: Callable[..., Any]) -> Any:
    """Copy of an energy, or of wrappers around it, with a function of the energy as ``sample``."""
    copied = copy(fn)
    if isinstance(fn, AbstractEnergyBased):
        copied.sample = partial(sample, fn)
    else:
        copied.base_dist = with_sample(fn.base_dist, sample)
    return copied
