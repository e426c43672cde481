"""Does inference on a model with energy-based sites mean what it says?"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from numpyro.distributions import Delta
from numpyro.handlers import block, seed, substitute
from numpyro.infer import init_to_uniform
from numpyro.infer.autoguide import AutoGuide
from numpyro.primitives import Messenger

from pyro_ebm.core.model.issues import (
    Finding,
    doubly_intractable,
    implicit_latent,
    in_guide,
    in_mixture,
    unregistered,
)
from pyro_ebm.numpyro.model.sites import (
    HOW_TO_REGISTER,
    find_dependencies,
    find_energy,
    find_mixture,
    has_implicit_base,
)

__all__ = ["check_model"]


def check_model(
    model: Callable[..., Any],
    *args: Any,
    guide: Callable[..., Any] | None = None,
    **kwargs: Any,
) -> list[Finding]:
    """Look for energy-based sites that inference would get wrong without a word.

    The model is traced, and nothing is computed: no chain runs, and no random key is needed.

    Args:
        model: The model.
        *args: Its arguments, and the guide's.
        guide: A guide to look at too. An autoguide holds no energy, and is not run.
        **kwargs: Their keyword arguments.

    Returns:
        What was found, in the order of the sites; empty for a model that is fine. Of each
        finding, ``site``, ``kind`` and ``message`` say where, what and what to do:

        - ``"doubly_intractable"``: the energy, base, support, mask or scale of a site without
          known ``log_normalizer`` depends on another latent variable;
        - ``"mixture"``: an energy without known ``log_normalizer`` is a component of a mixture,
          or depends on a discrete latent variable;
        - ``"guide"``: the guide samples an energy;
        - ``"implicit"``: a latent variable has a base without a density;
        - ``"unregistered"``: no optimizer will see the arrays of an energy that is a module, a
          partial, or a function that calls one.

    Example:
        >>> import numpyro, numpyro.distributions as dist
        >>> from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
        >>> def model():
        ...     scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        ...     numpyro.sample("x", EnergyBased(lambda x: scale * x**2, event_shape=()))
        >>> [(finding.site, finding.kind) for finding in check_model(model)]
        [('x', 'doubly_intractable')]
    """
    bound = partial(model, *args, **kwargs)
    sites = _Sites()
    inputs = _run(sites, bound)
    findings = [in_mixture(name, mixture) for name, mixture in sites.mixtures.items()]
    findings += [implicit_latent(name) for name in sites.implicit]
    found = find_dependencies(sites.energies, inputs, bound) if sites.energies else {}
    for name, has_normalizer in sites.energies.items():
        findings += [
            doubly_intractable(name, latent, is_discrete=is_discrete)
            for latent, is_discrete in sites.latents.items()
            if latent in found[name].potential - {name} and not has_normalizer
        ]
        unseen = [path for path, names in found[name].arrays.items() if not names]
        if unseen:
            advice = (
                f"{HOW_TO_REGISTER}; if they are meant to stay as they are, say so by arrays of "
                "NumPy: jax.device_get(energy)"
            )
            findings.append(unregistered(name, unseen, advice))
    if guide is None or isinstance(guide, AutoGuide):
        return findings
    in_the_guide = _Sites()
    _run(in_the_guide, partial(guide, *args, **kwargs))
    return findings + [in_guide(name) for name in [*in_the_guide.energies, *in_the_guide.mixtures]]


class _Sites(Messenger):
    """Keeps the names of a model's energies, mixtures of them, parameters and latent variables.

    Attributes:
        energies: Whether the log-normalizer is known, by site.
        mixtures: The mixtures, by site.
        latents: Whether they are discrete, by site.
        inputs: Values of parameters and latent variables.
        implicit: Latent variables whose base has no density.
    """

    def __init__(self) -> None:
        super().__init__()
        self.energies: dict[str, bool] = {}
        self.mixtures: dict[str, Any] = {}
        self.latents: dict[str, bool] = {}
        self.inputs: dict[str, Any] = {}
        self.implicit: list[str] = []

    def postprocess_message(self, msg: Any) -> None:
        if msg["type"] == "param":
            self.inputs[msg["name"]] = msg["value"]
        if msg["type"] != "sample":
            return
        name, fn = msg["name"], msg["fn"]
        energy, mixture = find_energy(fn), find_mixture(fn)
        if energy is not None:
            self.energies[name] = energy.log_normalizer is not None
            if has_implicit_base(fn) and not msg["is_observed"]:
                self.implicit.append(name)
        if mixture is not None:
            self.mixtures[name] = mixture
        if not msg["is_observed"] and not isinstance(fn, Delta):
            self.latents[name] = fn.support.is_discrete
            self.inputs[name] = msg["value"]


def _run(sites: _Sites, model: Callable[[], Any]) -> dict[str, Any]:
    """Shapes and types of what the model's parameters and latent variables are."""

    def inputs() -> dict[str, Any]:
        with block(), sites, substitute(substitute_fn=_initial_value), seed(rng_seed=0):
            model()
        return sites.inputs

    return jax.eval_shape(inputs)


def _initial_value(site: Any) -> Any:
    """As inference would start; a draw where no chain can walk."""
    if site["type"] == "sample" and has_implicit_base(site["fn"]):
        return None
    return init_to_uniform(site)
