"""Probe of an energy: a row gives the same number again, alone and among others."""

from math import prod
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.distributions.checks import check_energies, left_in_batch
from pyro_ebm.core.distributions.context import rows_of

# Two calls on few rows cost little, and batch norm shows most among few.
_NUM_ROWS = 16
# Sound energies differ by rounding, 4e-7 of their size; batch norm and dropout by 1e-2 or more.
_RELATIVE, _ROUNDING = 1e-3, 100


def check_rows(distribution: Any, value: Any, site: str | None = None) -> None:
    """Raise unless an energy's rows are independent of each other and of chance.

    Args:
        distribution: An energy-based distribution; batch norm in it may write to its statistics.
        value: Values of it, shape ``(*batch, *event)``.
        site: Name of its sample site, if it has one.
    """
    check_same(distribution, *check_number_of_rows(distribution, value, site), site)


def check_same(distribution: Any, first: Any, second: Any, site: str | None) -> None:
    """Raise unless the energies of rows are the same in two calls, but for rounding."""
    xp = array_namespace(first)
    if first.shape[0] == 0:
        return
    difference, size = float(xp.max(xp.abs(first - second))), float(xp.max(xp.abs(first)))
    spread = float(xp.max(first) - xp.min(first))
    if difference > _RELATIVE * spread + _ROUNDING * float(xp.finfo(first.dtype).eps) * size:
        raise ValueError(
            f"Expected {_name(distribution, site)} to give a row the same number again, alone and "
            f"among others, got a difference of {difference:.3g} at energies of {size:.3g}. Put "
            "batch norm and dropout into evaluation mode (`.eval()`), and take no means over rows."
        )


def check_number_of_rows(distribution: Any, value: Any, site: str | None = None) -> tuple[Any, Any]:
    """Raise unless an energy takes any number of rows.

    Returns:
        Energies of some rows from two calls, the second with fewer rows, in other places.
    """
    rows, batch_shape = rows_of(distribution, value)
    num_rows, of = min(prod(batch_shape), _NUM_ROWS), _name(distribution, site)
    part = slice(1, num_rows // 2 + 2) if num_rows > 1 else slice(0, 1)
    many = [slice(0, num_rows)] if num_rows > 1 else [slice(0, num_rows)] * 2
    return _call(distribution, many, rows, of)[part], _call(distribution, [part], rows, of)


def _name(distribution: Any, site: str | None) -> str:
    return f"the energy of site {site!r}" if site else f"the energy of {distribution}"


def _call(distribution: Any, parts: list[slice], rows: tuple[Any, ...], of: str) -> Any:
    given = _take(distribution, parts, rows)
    try:
        energies = distribution.energy(*given)
    except Exception as error:
        raise _explain(distribution, rows, of, len(given[0]), error) from error
    return check_energies(energies, given[0], distribution, of)


def _take(distribution: Any, parts: list[slice], rows: tuple[Any, ...]) -> list[Any]:
    xp = array_namespace(rows[0])

    def take(leaf: Any) -> Any:
        return xp.concat([leaf[part] for part in parts])

    return [distribution._map_context(take, row) for row in rows]


def _explain(
    distribution: Any, rows: tuple[Any, ...], of: str, num_rows: int, error: Exception
) -> ValueError:
    """Return the error of an energy that fails on some rows, and perhaps on all of them too."""
    for part in (slice(None), slice(0, 1)):
        try:
            distribution.energy(*_take(distribution, [part], rows))
        except Exception:
            continue
        return ValueError(
            f"Expected {of} to take any number of rows, got {type(error).__name__} from {num_rows} "
            f"of them: {error} What differs between rows comes as `context`: EnergyBased(energy, "
            "base, context=c) calls energy(x, c) with the rows of c that belong to those of x."
        )
    kinds: list[str] = []

    def note(leaf: Any) -> None:
        kinds.append(f"shape {tuple(leaf.shape)} and {leaf.dtype}")

    for row in rows:
        distribution._map_context(note, row)
    num_parts = len(rows) - (distribution.context is not None)
    given = ", and context of ".join([", ".join(kinds[:num_parts]), *kinds[num_parts:]])
    return ValueError(
        f"Expected {of} to take values of {given}, got {type(error).__name__}: {error}"
        f"{left_in_batch(distribution)}"
    )


def single_value(distribution: Any, site: str | None) -> ValueError:
    """Error of an energy that takes one value instead of rows."""
    return ValueError(
        f"Expected {_name(distribution, site)} to map rows (N, *event_shape) to (N,), got a "
        "function of a single value: write jax.vmap(energy)."
    )
