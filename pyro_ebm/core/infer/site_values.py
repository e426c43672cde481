"""Checks of the values at an energy-based site, and of the context of its energy."""

import math
import warnings
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.columns import misfit
from pyro_ebm.core.distributions.checks import is_implicit
from pyro_ebm.core.distributions.context import own_shape, with_counted_context
from pyro_ebm.core.distributions.joint import AbstractJoint
from pyro_ebm.core.numerics import expand_right, with_first_counted
from pyro_ebm.core.samplers.truncation import is_inside, move_inside


def check_values(site: str, energy: Any, value: Any, counts: Any) -> None:
    """Raise if values that count, shape ``(*batch, *event)``, or their contexts are no data."""
    check_finite_values(site, energy, value, counts)
    check_inside(site, energy, value, counts)
    check_joined(site, energy, value)
    check_context(site, energy, counts)


def check_finite_values(site: str, energy: Any, value: Any, counts: Any) -> None:
    """Raise if values that count, shape ``(*batch, *event)``, are NaN or infinite."""
    bad = ~array_namespace(value).isfinite(value)
    number = _count(bad, counts, len(energy.event_shape))
    if number:
        raise ValueError(
            f"Expected finite values at site {site!r}, got NaN or infinity in {number}."
        )


def check_joined(site: str, energy: Any, value: Any) -> None:
    """Warn if values of a ``Joint`` seem not to come from its ``join``."""
    base = energy.base
    part = base._part_not_joined(value) if isinstance(base, AbstractJoint) else None
    if part is not None:
        warnings.warn(
            f"Expected values at site {site!r} from `base.join({', '.join(base.parts)})`, in "
            f"unconstrained space, got rows whose {part!r} are more likely values as they are.",
            stacklevel=2,
        )


def check_context(site: str, energy: Any, counts: Any) -> None:
    """Raise if contexts of values that count are NaN."""

    def check(leaf: Any) -> None:
        event_ndim = leaf.ndim - energy.context_batch_ndims
        number = _count(array_namespace(leaf).isnan(leaf), counts, event_ndim)
        if number:
            raise ValueError(
                f"Expected a `context` at site {site!r} of numbers, got NaN in {number}."
            )

    if energy.context is not None:
        energy._map_context(check, energy.context)


def check_inside(site: str, energy: Any, value: Any, counts: Any) -> None:
    """Raise if values that count are outside of the support of an energy, or on its edge."""
    support = energy.support
    if support.is_discrete:
        _check_codes(site, energy, value, counts)
        return
    if energy._target_class.is_real(support):
        return
    try:
        target = energy._target()
    except ValueError:  # A generator's image has no edge that is known.
        return
    inside, value = move_inside(energy, value)
    log_volume = target.log_volume(target.position(value), value)
    if energy.base is not None and not is_implicit(energy.base):
        log_volume = log_volume + energy._base_log_prob(value)
    number = _count(~inside | ~array_namespace(log_volume).isfinite(log_volume), counts, 0)
    if number:
        raise ValueError(
            f"Expected values at site {site!r} in the interior of the support {support}, where the "
            f"base has a density above zero, got others in {number}: move or drop them."
        )


def _check_codes(site: str, energy: Any, value: Any, counts: Any) -> None:
    bad, columns = ~is_inside(energy, value), getattr(energy.support, "columns", None)
    number = _count(bad, counts, 0)
    if number:
        first = "" if columns is None else f" ({misfit(columns, value, bad & (counts > 0))})"
        raise ValueError(
            f"Expected values at site {site!r} in {energy.support}, got others in {number}{first}."
        )


def with_counted_rows(energy: Any, value: Any, counts: Any, *rng_key: Any) -> tuple[Any, Any]:
    """Replace values that do not count by one that does: chains that start there tune step sizes.

    Where each row has a distribution of its own, they become draws of its base, and contexts those
    of others.

    Args:
        energy: Distribution of the values.
        value: Shape ``(*batch, *event)``.
        counts: How often each counts, shape ``(*batch,)``.
        *rng_key: Key of the draws, if the host has keys.
    """
    if not math.prod(counts.shape):
        return energy, value
    filled = with_first_counted(value, counts > 0)
    if math.prod(own_shape(energy)) == 1:
        return energy, filled
    energy = with_counted_context(energy, counts > 0)
    drawn = _draw_of_base(energy, filled, *rng_key)
    is_kept = (counts > 0) | ~is_inside(energy, drawn)
    return energy, array_namespace(value).where(expand_right(is_kept, value.ndim), value, drawn)


def _draw_of_base(energy: Any, otherwise: Any, *rng_key: Any) -> Any:
    try:
        drawn = None if energy.base is None else energy.base.sample(*rng_key)
    except NotImplementedError:
        drawn = None
    xp = array_namespace(otherwise)
    return otherwise if drawn is None else xp.astype(drawn, otherwise.dtype)


def _count(bad: Any, counts: Any, event_ndim: int) -> str:
    """Describe how many of the values that count are bad; empty if none is."""
    xp = array_namespace(bad)
    if event_ndim:
        bad = xp.any(bad, axis=tuple(range(bad.ndim - event_ndim, bad.ndim)))
    bad = bad & (counts > 0)
    number = int(xp.sum(bad))
    return f"{number} of {math.prod(bad.shape)}" if number else ""
