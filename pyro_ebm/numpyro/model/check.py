"""Search for energy-based sites that inference would get wrong without an error."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
from jax.random import key
from numpyro.distributions import Delta
from numpyro.handlers import block, seed, substitute
from numpyro.infer import init_to_uniform
from numpyro.infer.autoguide import AutoGuide
from numpyro.primitives import Messenger

from pyro_ebm.core.distributions.checks import is_implicit
from pyro_ebm.core.model.issues import (
    ModelIssue,
    in_guide,
    issues_of_latents,
    issues_of_rows,
    issues_of_site,
)
from pyro_ebm.numpyro.model.parameters import TRAINED, copied
from pyro_ebm.numpyro.model.sites import (
    find_dependencies,
    find_energy,
    find_mixture,
    has_energy,
    issues_of_arrays,
)
from pyro_ebm.numpyro.samplers.target import initial_values


def check_model(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None = None,
    *,
    params: Mapping[str, Any] | None = None,
) -> Callable[..., list[ModelIssue]]:
    """Make a function that lists the issues of a model, and of a guide, given their arguments.

    Call it before you train or sample; an empty list means that no issue was found. It traces the
    model abstractly and, if there are energies, runs it once, with each energy on a few rows; no
    random key is needed. Arrays count as unregistered if the energy is a module, a partial, or a
    function that calls one. Without ``params``, parameters have their initial values. The issues:
    :class:`~pyro_ebm.core.model.issues.ModelIssue`.

    Example:
        >>> import numpyro, numpyro.distributions as dist, pyro_ebm.numpyro as ebm
        >>> def doubly_intractable():
        ...     scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        ...     numpyro.sample("x", ebm.EnergyBased(lambda x: scale * x**2, event_shape=()))
        >>> print(*(issue.kind for issue in check_model(doubly_intractable)()))
        doubly_intractable
    """

    def check(*args: Any, **kwargs: Any) -> list[ModelIssue]:
        trained = partial(substitute, data=dict(params or {}))
        issues = _check_sites(trained(partial(model, *args, **kwargs)))
        if guide is not None and not isinstance(guide, AutoGuide):
            sites = _GuideSites()
            _run(sites, trained(partial(guide, *args, **kwargs)))
            issues += sites.issues
        return issues

    return check


def _check_sites(model: Callable[[], Any]) -> list[ModelIssue]:
    sites = ModelSites()
    inputs = _run(sites, model)
    issues = sites.issues + (_check_rows(model) if sites.energies else [])
    wrong = {issue.site for issue in issues if issue.kind == "rows"}
    energies = {name: known for name, known in sites.energies.items() if name not in wrong}
    found = find_dependencies(energies, inputs, model) if energies else {}
    for name, has_normalizer in energies.items():
        if not has_normalizer:
            issues += issues_of_latents(name, found[name].normalizer, sites.latents)
        issues += issues_of_arrays(name, found[name])
    return issues


def _check_rows(model: Callable[[], Any]) -> list[ModelIssue]:
    rows, initial = _Rows(), substitute(substitute_fn=initial_value)
    with block(), rows, initial, seed(rng_seed=0):
        model()
    return rows.issues


class _Rows(Messenger):
    """Handler that evaluates a few rows of each energy."""

    def __init__(self) -> None:
        super().__init__()
        self.issues: list[ModelIssue] = []

    def postprocess_message(self, msg: Any) -> None:
        energy = find_energy(msg["fn"]) if msg["type"] == "sample" else None
        if energy is not None:
            is_latent = not msg["is_observed"]
            value = initial_values(key(0), energy, (2,)) if is_latent else msg["value"]
            self.issues += issues_of_rows(msg["name"], energy, value)


class _GuideSites(Messenger):
    """Handler that finds energies in a guide."""

    def __init__(self) -> None:
        super().__init__()
        self.issues: list[ModelIssue] = []
        self.inputs: dict[str, Any] = {}

    def postprocess_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and has_energy(msg["fn"]):
            self.issues.append(in_guide(msg["name"]))


class ModelSites(Messenger):
    """Handler that collects energies, latent variables, and values of these and of what trains.

    Attributes:
        energies: Whether the log-normalizer is known, by site.
        latents: Whether they are discrete, by site.
    """

    def __init__(self) -> None:
        super().__init__()
        self.issues: list[ModelIssue] = []
        self.inputs: dict[str, Any] = {}
        self.energies: dict[str, bool] = {}
        self.latents: dict[str, bool] = {}

    def postprocess_message(self, msg: Any) -> None:
        if msg["type"] in TRAINED:
            self.inputs[msg["name"]] = copied(msg["value"])
        if msg["type"] != "sample":
            return
        name, fn = msg["name"], msg["fn"]
        energy = find_energy(fn)
        self.issues += issues_of_site(msg, energy, find_mixture(fn))
        if energy is not None:
            self.energies[name] = energy.log_normalizer is not None and not energy._is_conditional
        if not msg["is_observed"] and not isinstance(fn, Delta):
            self.latents[name] = fn.support.is_discrete
            self.inputs[name] = msg["value"]


def _run(sites: Any, model: Callable[[], Any]) -> dict[str, Any]:
    """Shapes and types of the values that a handler collects as inputs."""

    def inputs() -> dict[str, Any]:
        with block(), sites, substitute(substitute_fn=initial_value), seed(rng_seed=0):
            model()
        return sites.inputs

    return jax.eval_shape(inputs)


def initial_value(site: Any) -> Any:
    """Initialize as inference does, but draw where the base of an energy has no density."""
    energy = find_energy(site["fn"]) if site["type"] == "sample" else None
    return None if energy is not None and is_implicit(energy.base) else init_to_uniform(site)
