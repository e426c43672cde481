"""Densities of the sites of a model, told from the messages that it sent."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import pyro
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import biject_to

from pyro_ebm.pyro.distributions.training import trained_by_objective
from pyro_ebm.pyro.model.sites import find_energy, map_energy

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
    """Context in which chains ask for densities, at whatever values, and train nothing."""
    with trained_by_objective(), pyro.validation_enabled(is_validate=False):
        yield


def log_density(site: Site) -> Tensor:
    """Log-density of each batch element, neither weighed nor masked by handlers."""
    return site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])


def tilt(site: Site) -> Tensor | None:
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


def unconstrained_value(site: Site) -> Tensor:
    """The value as a sampler sees it; detached."""
    return biject_to(site["fn"].support).inv(site["value"]).detach()


def log_volume(site: Site, unconstrained: Tensor) -> Tensor:
    """Log-determinant of the map from unconstrained space, of each batch element."""
    bijection = biject_to(site["fn"].support)
    log_volume = bijection.log_abs_det_jacobian(unconstrained, site["value"])
    num_batch_dims = site["value"].ndim - site["fn"].event_dim
    return cast(Tensor, sum_rightmost(log_volume, log_volume.ndim - num_batch_dims))


def plates_of(site: Site) -> set[tuple[str, int]]:
    """The plates that a site lies in, with their dimensions."""
    return {(frame.name, frame.dim) for frame in site["cond_indep_stack"] if frame.vectorized}


def shared_plates(sites: Iterable[Site]) -> set[tuple[str, int]]:
    """The plates that all sites lie in."""
    return set.intersection(*map(plates_of, sites))
