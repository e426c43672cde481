"""Checks of energy-based sites, and of what objectives and guides give for them."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from pyro_ebm.core.objectives.loss import Loss

ADVICE = (
    "If training diverged, try a smaller learning rate, more or smaller steps of the sampler "
    "that draws negatives, or a penalty on energies."
)


def objective_of(site: str, objective: Any) -> Any:
    """Objective of a site, or None, from one for all sites or a dictionary by site."""
    return objective.get(site) if isinstance(objective, Mapping) else objective


def check_objectives(objective: Any) -> None:
    """Raise ``TypeError`` unless this is one objective, or a dictionary of objectives."""
    for one in objective.values() if isinstance(objective, Mapping) else [objective]:
        if isinstance(one, type):
            raise TypeError(
                f"Expected an objective, got the class {one.__name__}: call it, as in "
                f"{one.__name__}(...)."
            )
        if not callable(getattr(one, "loss", None)):
            raise TypeError(f"Expected an objective with a `loss`, got {type(one).__name__}.")


def check_sites(objective: Any, found: Iterable[str]) -> None:
    """Raise if there is an objective for a name that is no energy-based site of the model."""
    found = sorted(found)
    for site in objective if isinstance(objective, Mapping) else ():
        if site not in found:
            raise ValueError(
                f"Expected objectives for energy-based sites of the model ({found}), got {site!r}."
            )


def check_attached_sites(attached: Iterable[str], trained: Iterable[str]) -> None:
    """Raise if a guide attached something to a name that is no site with an objective."""
    trained = sorted(trained)
    for site in attached:
        if site not in trained:
            raise ValueError(
                f"Expected attach(...) for sites with an objective ({trained}), got {site!r}."
            )


def refuse_attach(site: str) -> None:
    """Raise because a model attached something to a site."""
    raise ValueError(
        f"Expected attach({site!r}, ...) in the guide, got it in the model: the guide runs first."
    )


def check_attached(site: str, loss: Callable[..., Any], attached: Iterable[str]) -> None:
    """Raise unless the guide attached the keyword-only arguments of an objective's ``loss``.

    Args:
        site: Name of the site.
        loss: The objective's ``loss``.
        attached: Names of what the guide attached.
    """
    wanted = {
        name: parameter.default is parameter.empty
        for name, parameter in inspect.signature(loss).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    required = {name for name, is_required in wanted.items() if is_required}
    attached = set(attached)
    if not required <= attached <= set(wanted):
        raise ValueError(
            f"Expected the guide to attach {sorted(wanted) or 'nothing'} to site {site!r} by "
            f"attach({site!r}, ...) for its objective, got {sorted(attached) or 'nothing'}."
        )


def check_plates(site: str, batch_shape: Iterable[int], plate_dims: Collection[int]) -> None:
    """Raise if a batch dimension of an energy-based site is no plate.

    Args:
        site: Name of the site.
        batch_shape: Its batch shape.
        plate_dims: Negative dimensions of the plates around it.
    """
    batch_shape = tuple(batch_shape)
    for dim in range(-len(batch_shape), 0):
        if batch_shape[dim] > 1 and dim not in plate_dims:
            raise ValueError(
                f"Expected every batch dimension of energy-based site {site!r} to be a plate, got "
                f"batch shape {batch_shape} with no plate at {dim}. An enumerated variable "
                "upstream needs the log-normalizer of each of its values; independent values "
                "belong in a plate or in to_event."
            )


def as_loss(objective: Any, result: Any) -> Loss:
    """Return the result of an objective's ``loss``; raise unless it is a value with metrics."""
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping):
        return Loss(*result)
    raise TypeError(
        f"Expected `loss` of {type(objective).__name__} to return Loss(value, metrics), got "
        f"{type(result).__name__}."
    )


def not_finite(site: str) -> ValueError:
    """Error of an objective whose loss is NaN or infinite."""
    return ValueError(
        f"Expected finite losses and energies at site {site!r}, got NaN or infinity. {ADVICE}"
    )


def without_base(site: str) -> str:
    """Warning about a reported loss without log-normalizer."""
    return (
        f"The reported loss leaves out the log-normalizer of site {site!r}, which has no base to "
        "estimate it from; num_normalizer_samples=0 turns this warning off."
    )
