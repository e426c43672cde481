"""Latent variables of the present run of a model, and those that an energy refers to."""

from typing import Any, NamedTuple, Self

import jax
from numpyro.distributions import Delta
from numpyro.handlers import substitute, trace
from numpyro.primitives import _PYRO_STACK


class Latents(NamedTuple):
    """Names of latent variables that a run of a model, if it is traced, has drawn.

    Attributes:
        before: Those drawn before a distribution was made.
        behind: Those of them whose very values it refers to.
    """

    before: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()

    @classmethod
    def of(cls, *parts: Any) -> Self:
        """Find latents in a run so far, and those among the leaves of pytrees."""
        traces = (handler.trace for handler in _PYRO_STACK if isinstance(handler, trace))
        sites: list[Any] = [site for run in traces for site in run.values()]
        values = {site["name"]: site["value"] for site in sites if _is_latent(site)}
        leaves = {id(leaf) for leaf in jax.tree.leaves(parts)} if values else set()
        return cls(tuple(values), tuple(n for n, value in values.items() if id(value) in leaves))


def _is_latent(site: Any) -> bool:
    if site["type"] != "sample" or isinstance(site["fn"], Delta):
        return False
    # Gibbs kernels of the host condition on latents, and substitute them too.
    given = (it.data or () for it in _PYRO_STACK if isinstance(it, substitute))
    return not site["is_observed"] or any(site["name"] in data for data in given)
