"""Checks of energies, bases and generators."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, ValuesView
from numbers import Integral, Real
from typing import Any

from array_api_compat import array_namespace, is_torch_array

from pyro_ebm.core.checks import check_instance, check_positive
from pyro_ebm.core.numerics import as_real


def is_implicit(base: Any) -> bool:
    """Whether a base can be sampled but has no density, as a ``Pushforward`` may."""
    return getattr(base, "is_implicit", False)


def check_distribution(name: str, value: Any, kind: type) -> None:
    """Raise unless ``value`` is a distribution of the host, whose class is ``kind``."""
    if not isinstance(value, kind):
        raise TypeError(f"Expected `{name}` to be a distribution, got {type(value).__name__}.")


def check_energy_based(value: Any, kind: type) -> None:
    """Raise unless ``value`` is an energy-based distribution; ``kind`` is the class of the host."""
    check_instance("distribution", value)
    if not isinstance(value, kind):
        raise TypeError(
            "Expected `distribution` to be an EnergyBased distribution, got "
            f"{type(value).__name__}."
        )


def check_event_shape(name: str, value: Any) -> None:
    """Raise unless ``value`` is None or a sequence of sizes."""
    is_shape = isinstance(value, Sequence) and all(
        isinstance(size, Integral) and not isinstance(size, bool) and int(size) >= 0
        for size in value
    )
    if value is not None and not is_shape:
        raise ValueError(f"Expected `{name}` to be a tuple of integers, got {value!r}.")


def check_callable(name: str, value: Any) -> None:
    """Raise unless ``value`` can be called."""
    if not callable(value):
        raise TypeError(f"Expected `{name}` to be callable, got {type(value).__name__}.")


def check_ingredients(
    energy: Any, base: Any, event_shape: Any, log_normalizer: Any, *, has_context: bool = False
) -> None:
    """Raise unless these make an energy-based distribution."""
    check_callable("energy", energy)
    _check_arguments(energy, getattr(base, "parts", ("the value",)), has_context=has_context)
    if base is None and event_shape is None:
        raise ValueError("Expected a `base` or an `event_shape`, got neither.")
    check_instance("base", base)
    if _has_unknown_constant(base):
        raise ValueError(
            f"Expected a `base` with a normalized density, got {base}, whose log Z is unknown: add "
            "the energies, or give the energy in the base as `it.normalized(log_normalizer(it))`."
        )
    check_event_shape("event_shape", event_shape)
    shape = tuple(getattr(base, "event_shape", ()))
    if base is not None and event_shape is not None and shape != tuple(event_shape):
        raise ValueError(
            f"Expected `event_shape` to be that of the base, {shape}, got {tuple(event_shape)}."
        )
    if log_normalizer is not None:
        check_callable("log_normalizer", log_normalizer)


def _has_unknown_constant(distribution: Any) -> bool:
    """Return whether this is an energy whose log Z is unknown, or has one inside."""
    if hasattr(distribution, "_is_unnormalized"):
        return distribution._is_unnormalized
    return any(map(_has_unknown_constant, _parts_of(distribution)))


def _parts_of(distribution: Any) -> Iterator[Any]:
    """Yield the distributions that one is made of."""
    fields = getattr(distribution, "__dict__", {})
    # NumPyro's generators have theirs packed.
    packed = [getattr(distribution, "latent", None)] if "_latent" in fields else []
    for field in (*fields.values(), *packed):
        group = field.values() if isinstance(field, Mapping) else field
        for part in group if isinstance(group, list | tuple | ValuesView) else [group]:
            if hasattr(part, "log_prob") and part is not distribution:
                yield part


def _check_arguments(energy: Any, parts: Iterable[str], *, has_context: bool) -> None:
    try:
        # A module of torch says in its `forward` what it takes.
        signature = inspect.signature(getattr(energy, "forward", energy))
    except ValueError:
        return
    names = [*parts]
    try:
        signature.bind(*range(len(names) + has_context))
    except TypeError as error:
        wanted = " and ".join(names)
        wanted += " and its context" if has_context else " alone (no `context`)"
        raise TypeError(
            f"Expected `energy` to be a function of {wanted}, got one of {signature}."
        ) from error


def check_inverse_temperature(value: Any) -> float:
    """Return a positive number; raise for others, and for arrays, which may be learned or drawn."""
    if hasattr(value, "ndim") and not isinstance(value, Real):
        raise ValueError(
            f"Expected `inverse_temperature` to be a positive number, got {type(value).__name__}: "
            "one that is learned, drawn or traced is a part of the energy, as in "
            "EnergyBased(lambda x: beta * energy(x), base)."
        )
    return check_positive("inverse_temperature", value)


def check_expansion(batch_shape: Any, new_shape: Any, broadcast_shapes: Callable[..., Any]) -> None:
    """Raise unless a distribution can be expanded from one batch shape to another."""
    try:
        fits = tuple(broadcast_shapes(batch_shape, new_shape)) == tuple(new_shape)
    except (RuntimeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"Cannot broadcast distribution of shape {tuple(batch_shape)} to shape "
            f"{tuple(new_shape)}."
        )


def check_value_shape(shape: Any, event_shape: Any, at: str = "") -> tuple[int, ...]:
    """Return the batch shape of a value; raise unless it ends with ``event_shape``."""
    batch_ndim = len(shape) - len(event_shape)
    if batch_ndim < 0 or tuple(shape[batch_ndim:]) != tuple(event_shape):
        raise ValueError(
            f"Expected a value of event shape {tuple(event_shape)}{at}, "
            f"got a value of shape {tuple(shape)}."
        )
    return tuple(shape[:batch_ndim])


def left_in_batch(distribution: Any) -> str:
    """Suspect, where an energy fails, that the base of vectors lacks an event; else return ""."""
    base = distribution.base
    if base is None or base.event_shape or not base.batch_shape or distribution.context is not None:
        return ""
    shape = tuple(base.batch_shape)
    return f" The base has a batch {shape} of numbers, no event: did you mean base.to_event(1)?"


def check_energies(energies: Any, values: Any, distribution: Any, of: str = "the energy") -> Any:
    """Return what an energy made of values; raise unless it is one real number for each.

    A column ``(N, 1)`` would broadcast against ``(N,)`` silently, so nothing is squeezed.
    """
    shape, num_values = getattr(energies, "shape", None), values.shape[0]
    got = f"shape {tuple(shape)}" if shape is not None else type(energies).__name__
    if shape is None or tuple(shape) != (num_values,):
        raise ValueError(
            f"Expected {of} to map ({num_values}, *event_shape) to shape ({num_values},), "
            f"got {got}.{left_in_batch(distribution)}"
        )
    if is_torch_array(values) and not is_torch_array(energies):
        raise ValueError(f"Expected {of} to give a tensor, got {type(energies).__name__}.")
    if array_namespace(energies).isdtype(energies.dtype, "complex floating"):
        raise ValueError(f"Expected {of} to give real numbers, got {energies.dtype}.")
    return as_real(energies)


def check_generated_shape(shape: Any, latent_shape: Any) -> tuple[int, ...]:
    """Return the event shape of what a generator made of one latent value; raise unless one row."""
    if tuple(shape[:1]) != (1,):
        raise ValueError(
            "Expected the generator to map (N, *latent.event_shape) to (N, *event_shape), got "
            f"shape {tuple(shape)} from {tuple(latent_shape)}."
        )
    return tuple(shape[1:])


def check_one_distribution(distribution: Any, of_chains: str = "") -> None:
    """Raise if batch elements have distributions of their own: a context, or a batched base."""
    if distribution.context is not None:
        remedy = ": leave out `chains`, take ContrastiveDivergence(init='data')"
        got = f"a context{remedy if of_chains else ''}"
        raise ValueError(f"Expected one distribution for all batch elements{of_chains}, got {got}.")
    base = distribution.base
    if base is not None and tuple(base.batch_shape):
        raise ValueError(
            f"Expected one distribution for all batch elements{of_chains}, got a base of batch "
            f"shape {tuple(base.batch_shape)}. Write it without; a plate expands it."
        )


# Of a log-normalizer that depends on a latent variable.
REMEDY = (
    "Give `log_normalizer` if it is known. For a likelihood that is learned, train pairs with "
    "joint = EnergyBased(energy, Joint(theta=prior, x=base)), and write "
    "joint.conditional(theta=theta)."
)


def describe_dependence(latent: str, site: str | None = None, *, is_discrete: bool = False) -> str:
    """Describe a log-normalizer that depends on a latent variable, perhaps on that of its site."""
    of = f"site {site!r}" if site else "an energy-based site"
    wrong = "the weights of its values" if is_discrete else "its posterior"
    itself = ", its own earlier values in a scan" if latent == site else ""
    return (
        f"Expected the energy and base of {of} to depend on parameters and data only, got a "
        f"dependence on the latent variable {latent!r}{itself}: the log-normalizer depends on it "
        f"too (the model is doubly intractable), and {wrong} would be silently wrong under MCMC "
        f"and with every guide. {REMEDY}"
    )


def describe_learned_scale(site: str | None = None) -> str:
    """Describe a weight of an unknown log-normalizer that has a gradient."""
    of = f"site {site!r}" if site else "an energy-based site"
    return (
        f"Expected a constant scale of {of}, got one that is learned or depends on a latent "
        "variable: the log-normalizer, which it multiplies, is unknown, and its gradient would be "
        "silently wrong. Give `log_normalizer` if it is known."
    )


def check_real_latent(latent: Any, *, is_real: bool) -> None:
    """Raise unless the support of a latent that noise is joined to is all real numbers."""
    if not is_real:
        raise ValueError(
            "Expected a latent over all real numbers where a Pushforward has noise, got "
            f"{type(latent).__name__}: draw a normal latent and transform it "
            "in the generator (log_normalizer(method='importance') needs none)."
        )


def no_latent_space(base: Any) -> ValueError:
    """Error for a base that is not a generator's output on a latent."""
    return ValueError(
        "Expected a base with a latent space (a Pushforward, a TransformedDistribution or a flow), "
        f"got {base}."
    )


def no_inverse(base: Any) -> ValueError:
    """Error for a base whose density is known at its own draws alone."""
    transforms = getattr(base, "transforms", None) or [base]
    return ValueError(
        f"Expected a base whose transforms have inverses, got {transforms}: use the latent space, "
        "EnergyBased(...).latent, or the base Pushforward(latent, generator), with a function as "
        "the generator, which needs no inverse."
    )


def check_one_transform(source: Any, base: Any) -> None:
    """Raise if a base and the pushforward made of it differ in event shape."""
    if tuple(source.event_shape) != tuple(base.event_shape):
        raise ValueError(f"Expected one transform for all batch elements, got {base}.")
