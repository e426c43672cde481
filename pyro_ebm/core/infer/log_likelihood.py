"""Sites of a model whose pointwise log-likelihood ArviZ compares."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

from pyro_ebm.core.model.sites import Site


def model_of(
    kernel: Any,
    use: str = "`log_likelihood=True`",
    instead: str = "the group, log_likelihood={...}",
) -> Any:
    """Return the model behind a kernel of MCMC; raise if there is none to use."""
    model = getattr(kernel, "model", None)
    if model is None:
        raise ValueError(
            f"Expected an MCMC object with a model for {use}, got {type(kernel).__name__} without "
            f"one: give {instead}."
        )
    return model


def check_no_subsampling(plates: Iterable[tuple[str, int, int | None]]) -> None:
    """Raise if a plate, of a name, a size and a size of its subsample, has not all elements."""
    for name, size, subsample_size in plates:
        if subsample_size not in (None, size):
            raise ValueError(
                f"Expected all data for `log_likelihood=True`, got {subsample_size} of {size} "
                f"elements of plate {name!r}: run the model without subsampling, or give the "
                "group, log_likelihood={...}."
            )


def pointwise_sites(
    sites: Iterable[Site], draws: Collection[str], is_unnormalized: Callable[[Any], bool]
) -> list[str]:
    """Return the names of the observed sites, without factors.

    Args:
        sites: Messages of all sample sites of a run of the model.
        draws: Names of the variables with posterior draws.
        is_unnormalized: Whether the density of a distribution is known up to a constant only.

    Raises:
        ValueError: If an observed site is unnormalized, a latent variable has no draws, or nothing
            is observed.
    """
    names = []
    for site in sites:
        name = site["name"]
        if name in draws or tuple(site["fn"].event_shape) == (0,):
            continue
        if not site["is_observed"]:
            raise ValueError(
                f"Expected draws of every latent variable for `log_likelihood=True`, got none of "
                f"{name!r}: what MCMC sums over, the log-likelihood has to sum over too."
            )
        if is_unnormalized(site["fn"]):
            raise ValueError(
                "Expected a log-likelihood in full for `log_likelihood=True`, got energy-based "
                f"site {name!r}, whose density is known up to its log-normalizer: observe "
                "`distribution.normalized(log_normalizer)` there (a conditional of "
                "`joint.normalized(log_normalizer)`), or give the other sites alone, "
                "log_likelihood={...}."
            )
        names.append(name)
    if not names:
        raise ValueError("Expected observed sites for `log_likelihood=True`, got none.")
    return names
