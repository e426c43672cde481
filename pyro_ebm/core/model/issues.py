"""What is wrong with an energy in a model, in words that both hosts use."""

from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = [
    "Finding",
    "doubly_intractable",
    "implicit_latent",
    "in_guide",
    "in_mixture",
    "unregistered",
]


class Finding(NamedTuple):
    """Something about an energy-based site that inference would get wrong.

    Attributes:
        site: Name of the sample site.
        kind: ``"doubly_intractable"``, ``"mixture"``, ``"guide"``, ``"implicit"`` or
            ``"unregistered"``.
        message: What is wrong, what it breaks, and what to do about it.
    """

    site: str
    kind: str
    message: str

    @property
    def biases_mcmc(self) -> bool:
        """Whether every kernel, of the host or of ours, would sample another density."""
        return self.kind in ("doubly_intractable", "implicit", "mixture")


def doubly_intractable(site: str, latent: str, *, is_discrete: bool = False) -> Finding:
    """The log-normalizer depends on another latent; a discrete one makes a mixture of energies."""
    wrong = "the weights of its values" if is_discrete else "its posterior"
    return Finding(
        site,
        "mixture" if is_discrete else "doubly_intractable",
        f"Expected the energy and base of site {site!r} to depend on parameters and data only, "
        f"got a dependence on the latent variable {latent!r}: the log-normalizer depends on it "
        f"too (the model is doubly intractable), and {wrong} would be silently wrong under MCMC "
        "and with every guide. Give `log_normalizer` if it is known.",
    )


def in_mixture(site: str, mixture: Any) -> Finding:
    """An energy is a component of a mixture, or part of another distribution like it."""
    return Finding(
        site,
        "mixture",
        f"Expected normalized components of {type(mixture).__name__} at site {site!r}, got "
        "EnergyBased: its log-normalizer is unknown, and weights and responsibilities would be "
        "silently wrong. Give `log_normalizer` if it is known, or put the mixture into the base "
        "of one energy.",
    )


def in_guide(site: str) -> Finding:
    """A guide samples an energy."""
    return Finding(
        site,
        "guide",
        f"Expected a guide of normalized distributions, got EnergyBased at site {site!r} of the "
        "guide: its log-normalizer is unknown, and so is the gradient of its draws; the guide's "
        "parameters would be fitted wrongly. Use it in the model.",
    )


def implicit_latent(site: str) -> Finding:
    """A latent variable whose base has no density."""
    return Finding(
        site,
        "implicit",
        f"Expected a base with a density at the latent site {site!r}, got a Pushforward without "
        "one: the log_prob there is relative to the base, and every posterior would be silently "
        "wrong. Sample the latent variable of the base in its place, "
        "z ~ EnergyBased(...).latent, and give the model what the generator makes of it.",
    )


def unregistered(site: str, parameters: Iterable[str], advice: str) -> Finding:
    """Parameters of an energy never reach the host, so that no optimizer steps them."""
    named = ", ".join(parameters)
    return Finding(
        site,
        "unregistered",
        f"No optimizer will see these parameters of site {site!r}{': ' + named if named else ''}; "
        f"{advice}.",
    )
