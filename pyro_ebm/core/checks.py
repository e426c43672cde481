"""Checks of what a user hands in, with errors that say what was expected and what came."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral, Real
from typing import Any

from array_api_compat import array_namespace

# Below this mean acceptance a chain counts as stuck, if it has at least so many draws.
_STUCK, _FEW_DRAWS = 1e-3, 10
# A larger share of divergent transitions than this is worth a warning.
_MANY_DIVERGENCES = 0.01


def check_finite(name: str, value: Any) -> float:
    """Return ``value`` as a float; raise unless it is a finite number."""
    if not _is_number(value):
        raise ValueError(f"Expected `{name}` to be a finite number, got {value!r}.")
    return float(value)


def check_positive(name: str, value: Any) -> float:
    """Return ``value`` as a float; raise unless it is a finite number above zero."""
    if not _is_number(value) or not value > 0:
        raise ValueError(f"Expected `{name}` to be a positive number, got {value!r}.")
    return float(value)


def check_nonnegative(name: str, value: Any) -> float:
    """Return ``value`` as a float; raise unless it is a finite number, zero or above."""
    if not _is_number(value) or not value >= 0:
        raise ValueError(f"Expected `{name}` to be a number of at least 0, got {value!r}.")
    return float(value)


def check_positive_integer(name: str, value: Any, *, minimum: int = 1) -> int:
    """Return ``value`` as an int; raise unless it is an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise ValueError(
            f"Expected `{name}` to be an integer of at least {minimum}, got {value!r}."
        )
    return int(value)


def check_probability(name: str, value: Any) -> float:
    """Return ``value`` as a float; raise unless it is a number strictly between 0 and 1."""
    if not _is_number(value) or not 0 < value < 1:
        raise ValueError(f"Expected `{name}` to be a number between 0 and 1, got {value!r}.")
    return float(value)


def check_scalar(name: str, shape: Iterable[int]) -> None:
    """Raise unless an array has no dimensions."""
    if tuple(shape):
        raise ValueError(f"Expected `{name}` to be one number, got shape {tuple(shape)}.")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return ``value``; raise unless it is one of ``choices``."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"Expected `{name}` to be one of {choices}, got {value!r}.")
    return value


def check_energy_shape(energies: Any, num_values: int) -> None:
    """Raise unless an energy gave one number for each of the ``num_values`` values it was given.

    A column ``(N, 1)`` would broadcast against ``(N,)`` without a word, so nothing is squeezed.
    """
    shape = getattr(energies, "shape", None)
    if shape is None or tuple(shape) != (num_values,):
        got = f"shape {tuple(shape)}" if shape is not None else f"{type(energies).__name__}"
        raise ValueError(
            f"Expected the energy to map ({num_values}, *event_shape) to shape ({num_values},), "
            f"got {got}."
        )


def check_sites(expected: Iterable[str], found: Iterable[str]) -> None:
    """Raise if an objective was given for a site that is not an energy-based site of the model."""
    found = sorted(found)
    for site in expected:
        if site not in found:
            raise ValueError(
                f"Expected objectives for energy-based sites of the model ({found}), got {site!r}."
            )


def check_auxiliary(site: str, loss: Callable[..., Any], declared: Iterable[str]) -> None:
    """Raise unless the guide declared what an objective's ``loss`` asks for, and no more.

    What ``auxiliary(site, name=...)`` declares reaches ``loss`` as keyword-only arguments.
    """
    wanted = {
        name: parameter.default is parameter.empty
        for name, parameter in inspect.signature(loss).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    required = {name for name, is_required in wanted.items() if is_required}
    declared = set(declared)
    if not required <= declared <= set(wanted):
        raise ValueError(
            f"Expected the guide to declare {sorted(wanted) or 'nothing'} for the objective of "
            f"site {site!r} by auxiliary({site!r}, ...), got {sorted(declared) or 'nothing'}."
        )


def check_start(distribution: Any, potential: Any, gradient: Any) -> None:
    """Raise unless every chain starts where potential and gradient are finite.

    Args:
        distribution: What the chains are to walk on.
        potential: Shape ``(*chains,)``.
        gradient: Shape ``(*chains, *event)``.
    """
    xp = array_namespace(potential)
    finite = xp.isfinite(potential)
    event_axes = tuple(range(potential.ndim, gradient.ndim))
    finite_gradient = xp.all(xp.isfinite(gradient), axis=event_axes) if event_axes else finite
    num_bad = int(xp.sum(~(finite & finite_gradient)))
    if num_bad:
        raise ValueError(
            f"Expected every chain to start where {distribution} has a finite density and "
            f"gradient, got NaN or infinity in {num_bad} of {math.prod(finite.shape)} chains. Give "
            "`init`, or look at the energy there."
        )


def describe_trouble(
    sampler: Any, distribution: Any, acceptance_rate: Any, diverging: Any
) -> Iterator[str]:
    """What a user should know of a run before trusting its draws, a sentence each.

    Args:
        sampler: The kernel.
        distribution: What it walked on.
        acceptance_rate: Shape ``(num_chains, num_samples, *batch)``.
        diverging: Booleans of the same shape.
    """
    xp = array_namespace(acceptance_rate)
    num_transitions, num_diverging = math.prod(diverging.shape), int(xp.sum(diverging))
    if num_diverging > _MANY_DIVERGENCES * num_transitions:
        yield (
            f"{num_diverging} of {num_transitions} transitions that were kept of {sampler} on "
            f"{distribution} diverged: lower its `step_size`, or look at the energy there."
        )
    mean_rate = xp.mean(acceptance_rate, axis=1)
    if acceptance_rate.shape[1] < _FEW_DRAWS:  # Too few to say it of a single chain.
        mean_rate = xp.mean(acceptance_rate)
    num_stuck, num_chains = int(xp.sum(mean_rate < _STUCK)), math.prod(mean_rate.shape)
    if num_stuck:
        yield (
            f"{num_stuck} of {num_chains} chains of {sampler} on {distribution} are stuck, "
            f"with a mean acceptance below {_STUCK}: lower its `step_size` or let `num_warmup` "
            "tune it."
        )


def is_implicit(base: Any) -> bool:
    """Whether a base can be drawn from and has no density, as a ``Pushforward`` may."""
    return getattr(base, "is_implicit", False)


def check_ingredients(energy: Any, base: Any, event_shape: Any, log_normalizer: Any) -> None:
    """Raise unless these make an energy-based distribution."""
    if not callable(energy):
        raise TypeError(f"Expected `energy` to be callable, got {type(energy).__name__}.")
    if base is None and event_shape is None:
        raise ValueError("Expected a `base` or an `event_shape`, got neither.")
    shape = tuple(getattr(base, "event_shape", ()))
    if base is not None and event_shape is not None and shape != tuple(event_shape):
        raise ValueError(
            f"Expected `event_shape` to be that of the base, {shape}, got {tuple(event_shape)}."
        )
    if log_normalizer is not None and not callable(log_normalizer):
        raise TypeError(
            f"Expected `log_normalizer` to be callable, got {type(log_normalizer).__name__}."
        )


def check_one_base(distribution: Any, where: str = "") -> None:
    """Raise if the base of a distribution has a batch shape of its own."""
    base = distribution.base
    if base is not None and tuple(base.batch_shape):
        raise ValueError(
            f"Expected one base for all batch elements{where}, got a base of batch shape "
            f"{tuple(base.batch_shape)}. Write it without; a plate expands it."
        )


def check_chains(
    num_chains: Any, event_shape: Any, buffer_size: Any, restart_probability: Any
) -> None:
    """Raise unless these describe persistent chains."""
    check_positive_integer("num_chains", num_chains)
    if not isinstance(event_shape, tuple):
        raise ValueError(f"Expected `event_shape` to be a tuple of integers, got {event_shape!r}.")
    for size in event_shape:
        check_positive_integer("event_shape", size)
    if buffer_size is not None:
        check_positive_integer("buffer_size", buffer_size, minimum=num_chains)
    if not _is_number(restart_probability) or not 0 <= restart_probability <= 1:
        raise ValueError(
            "Expected `restart_probability` to be a number from 0 to 1, "
            f"got {restart_probability!r}."
        )


def check_chain_shapes(name: str, shape: Any, values: Any, distribution: Any) -> None:
    """Raise unless persistent chains fit their energy-based site and what is kept of them.

    Args:
        name: Under which their values are kept, for example ``"z$chains"``.
        shape: Of the values of all chains, ``(buffer_size, *event_shape)``.
        values: What is kept, or None at the start.
        distribution: The site's distribution.
    """
    if tuple(distribution.event_shape) != tuple(shape[1:]):
        raise ValueError(
            f"Expected {name!r} to have the event shape of its site, "
            f"{tuple(distribution.event_shape)}, got {tuple(shape[1:])}."
        )
    check_one_base(distribution, f" where {name!r} walks")
    if values is not None and tuple(values.shape) != tuple(shape):
        raise ValueError(
            f"Expected the values that are kept of {name!r} to have shape {tuple(shape)}, got "
            f"{tuple(values.shape)}. Do they come from an earlier run with other chains?"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
