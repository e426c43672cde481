"""Issues of energy-based sites that inference would get wrong without an error."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyro_ebm.core.distributions.checks import describe_dependence, is_implicit

_BIASING = ("doubly_intractable", "implicit", "mixture", "rows")


@dataclass(frozen=True)
class ModelIssue:
    """An issue at an energy-based site; its ``str`` is the message.

    Attributes:
        site: Name of the sample site.
        kind: One of

            - ``"doubly_intractable"``: energy, base, support, mask or scale of a site without known
              ``log_normalizer`` depend on another latent variable;
            - ``"mixture"``: an energy without known ``log_normalizer`` is a component of a mixture,
              folded, or depends on a discrete latent variable;
            - ``"guide"``: a guide samples an energy;
            - ``"implicit"``: the base of a latent variable has no density;
            - ``"rows"``: an energy's rows depend on each other, on their number or on chance;
            - ``"unregistered"``: no optimizer will update parameters of the energy.
        message: The issue, what it breaks, and the remedy.
    """

    site: str
    kind: str
    message: str

    def __str__(self) -> str:
        return self.message

    @property
    def biases_mcmc(self) -> bool:
        """Whether MCMC, with any kernel, would sample another density."""
        return self.kind in _BIASING


def issues_of_site(site: Any, energy: Any, mixture: Any) -> Iterator[ModelIssue]:
    """Yield the issues that the message of a model's site shows by itself.

    ``energy`` is the energy-based distribution in it, ``mixture`` one with an energy as a
    component, or None.
    """
    if mixture is not None:
        yield in_mixture(site["name"], mixture)
    if energy is not None and is_implicit(energy.base) and not site["is_observed"]:
        yield implicit_latent(site["name"])


def issues_of_latents(
    site: str, behind: Collection[str], latents: Mapping[str, bool]
) -> Iterator[ModelIssue]:
    """Yield an issue for each latent behind a site's log-normalizer, in a scan perhaps its own.

    ``behind`` are names; ``latents`` has whether each latent of the model is discrete.
    """
    for latent, is_discrete in latents.items():
        if latent in behind:
            yield doubly_intractable(site, latent, is_discrete=is_discrete)


def issues_of_rows(site: str, energy: Any, value: Any) -> Iterator[ModelIssue]:
    """Yield the issue that rows of an energy depend on each other, on their number or on chance."""
    try:
        energy._check_rows(value, site)
    except ValueError as error:
        yield ModelIssue(site, "rows", str(error))


def check_site(site: str, energies: Collection[str], latents: Collection[str]) -> None:
    """Raise unless a site is one of these energies, and no latent variable is behind it."""
    if site not in energies:
        raise ValueError(
            f"Expected an energy-based site of the model ({sorted(energies)}), got {site!r}."
        )
    if latents:
        raise ValueError(
            f"Expected the energy and base of site {site!r} to depend on parameters and data only, "
            f"got a dependence on the latent variables {sorted(latents)}: condition the model on "
            "values of them."
        )


def doubly_intractable(site: str, latent: str, *, is_discrete: bool = False) -> ModelIssue:
    """Log-normalizer that depends on a latent variable, perhaps a discrete one, or on itself."""
    kind = "mixture" if is_discrete else "doubly_intractable"
    return ModelIssue(site, kind, describe_dependence(latent, site, is_discrete=is_discrete))


def in_mixture(site: str, mixture: Any) -> ModelIssue:
    """Energy that is a component of a mixture, or part of another distribution."""
    return ModelIssue(
        site,
        "mixture",
        f"Expected normalized components of {type(mixture).__name__} at site {site!r}, got "
        "EnergyBased: its log-normalizer is unknown, and weights, responsibilities and gradients "
        "would be silently wrong. Give `log_normalizer` if it is known, or put the mixture into "
        "the base of one energy.",
    )


def in_guide(site: str) -> ModelIssue:
    """Energy that a guide samples."""
    return ModelIssue(
        site,
        "guide",
        f"Expected a guide of normalized distributions, got EnergyBased at site {site!r} of the "
        "guide: its log-normalizer is unknown, and so is the gradient of its draws; the guide's "
        "parameters would be fitted wrongly. Use it in the model.",
    )


def implicit_latent(site: str) -> ModelIssue:
    """Latent variable whose base has no density."""
    return ModelIssue(
        site,
        "implicit",
        f"Expected a base with a density at the latent site {site!r}, got a Pushforward without "
        "one: the log_prob there is relative to the base, and every posterior would be silently "
        "wrong. Sample the latent variable of the base instead, z ~ EnergyBased(...).latent, and "
        "use the output of the generator in the model.",
    )


def unregistered(site: str, parameters: Iterable[str], advice: str) -> ModelIssue:
    """Parameters of an energy that are unknown to the host, and that no optimizer updates."""
    named = ", ".join(parameters)
    return ModelIssue(
        site,
        "unregistered",
        f"No optimizer will update these parameters of site {site!r}{': ' + named if named else ''}"
        f"; {advice}.",
    )
