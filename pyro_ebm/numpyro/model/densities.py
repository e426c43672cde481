"""Densities of the sites of a model, told from the messages that it sent."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from numpyro.distributions import biject_to
from numpyro.distributions.util import sum_rightmost

from pyro_ebm.numpyro.distributions.training import trained_by_objective
from pyro_ebm.numpyro.model.sites import find_energy, map_energy

__all__ = [
    "Site",
    "log_density",
    "log_volume",
    "plates_of",
    "scoring",
    "shared_plates",
    "tilt",
    "unconstrained_value",
]

Site = Mapping[str, Any]


@contextmanager
def scoring() -> Iterator[None]:
    """Context in which chains ask for densities, and train nothing."""
    with trained_by_objective():
        yield


def log_density(site: Site) -> Array:
    """Log-density of each batch element, not weighed by handlers."""
    return site["fn"].log_prob(site["value"])


def tilt(site: Site) -> Array | None:
    """What an energy adds to the log-density of its base; None for any other distribution.

    Raises:
        ValueError: If there is no base.
    """
    energy = find_energy(site["fn"])
    if energy is None:
        return None
    if energy.base is None:
        raise ValueError(f"Expected a base at energy-based site {site['name']!r}, got base=None.")
    log_normalizer = energy.log_normalizer() if energy.log_normalizer is not None else 0.0
    return map_energy(
        site["fn"], site["value"], lambda energy, value: -energy.evaluate(value) - log_normalizer
    )


def unconstrained_value(site: Site) -> Array:
    """The value as a sampler sees it; detached."""
    return lax.stop_gradient(biject_to(site["fn"].support).inv(site["value"]))


def log_volume(site: Site, unconstrained: Array) -> Array:
    """Log-determinant of the map from unconstrained space, of each batch element."""
    bijection = biject_to(site["fn"].support)
    log_volume = bijection.log_abs_det_jacobian(unconstrained, site["value"])
    num_batch_dims = jnp.ndim(site["value"]) - site["fn"].event_dim
    return sum_rightmost(log_volume, log_volume.ndim - num_batch_dims)


def plates_of(site: Site) -> set[tuple[str, int]]:
    """The plates that a site lies in, with their dimensions."""
    return {(frame.name, frame.dim) for frame in site["cond_indep_stack"]}


def shared_plates(sites: Iterable[Site]) -> set[tuple[str, int]]:
    """The plates that all sites lie in."""
    return set.intersection(*map(plates_of, sites))
