"""Sample sites of a model, as messages: their plates, and which are refused."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pyro_ebm.core.model.issues import in_mixture

Site = Mapping[str, Any]


def plates_of(site: Site) -> set[tuple[str, int]]:
    """Names and dimensions of the plates around a site."""
    return {(f.name, f.dim) for f in site["cond_indep_stack"] if f.dim is not None}


def shared_plates(sites: Iterable[Site]) -> set[tuple[str, int]]:
    """Plates that contain all of the sites."""
    return set.intersection(*map(plates_of, sites))


def check_sites(
    sites: Mapping[str, Site], point_mass: type, find_mixture: Callable[[Any], Any]
) -> None:
    """Raise for mixtures of energies, and unless latents are continuous and no ``point_mass``."""
    mixtures = ((name, find_mixture(site["fn"])) for name, site in sites.items())
    for issue in (in_mixture(name, mixture) for name, mixture in mixtures if mixture is not None):
        raise ValueError(issue.message)
    latents = {name: site for name, site in sites.items() if not site["is_observed"]}
    if not latents:
        raise ValueError(
            "Expected a model with latent variables, got none: the density of an observed energy "
            "alone is `log_density`."
        )
    for name, site in latents.items():
        if site["fn"].support.is_discrete or isinstance(site["fn"], point_mass):
            raise ValueError(
                f"Expected continuous latent variables, got {type(site['fn']).__name__} at site "
                f"{name!r}: its density has no gradient."
            )


def check_subsampling(sites: Mapping[str, Site], full_size: Callable[[Any], int]) -> None:
    """Raise if a plate is subsampled that does not contain all of the sites.

    ``full_size`` returns the size of a plate without subsampling, by its frame.
    """
    shared = {name for name, _ in shared_plates(sites.values())}
    for site in sites.values():
        for frame in site["cond_indep_stack"]:
            if frame.name not in shared and full_size(frame) != frame.size:
                raise ValueError(
                    f"Expected no subsampling in plate {frame.name!r}, which does not contain all "
                    f"of {list(sites)}: the posterior of the sites outside, given {frame.size} of "
                    f"{full_size(frame)} elements, is not their posterior given all."
                )
