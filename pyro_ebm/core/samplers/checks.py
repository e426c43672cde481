"""Checks of runs of chains: arguments, initial positions, divergences."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.checks import check_positive_integer
from pyro_ebm.core.columns import Columns, have_codes
from pyro_ebm.core.numerics import as_real
from pyro_ebm.core.samplers.dynamics import ChainState, is_finite

# Below this mean acceptance a chain counts as stuck, if it has at least so many draws.
_STUCK, _FEW_DRAWS = 1e-3, 10
# A larger share of divergent transitions than this is worth a warning.
_MANY_DIVERGENCES = 0.01
# A shorter warm-up may not have found a step size.
_SHORT_WARMUP = 100


def check_run(num_samples: Any, num_warmup: Any, thinning: Any, num_chains: Any, init: Any) -> int:
    """Check the arguments of ``run_chains``, and return the number of chains.

    The chains have samples of shape ``(num_chains, num_samples, *batch, *event)`` and statistics
    ``lp`` (log-density up to a constant), ``acceptance_rate``, ``diverging``, ``step_size``, and
    ``ebm_energy`` where an energy-based target has a base.

    Args:
        num_samples: Number of draws kept from each chain.
        num_warmup: Steps before the first draw, none by default. In warm-up, a sampler with a
            ``target_accept_prob`` tunes its step size, and one with ``adapt_mass_matrix`` learns a
            scale for each coordinate, both shared by all chains. Then nothing changes any more.
        thinning: Number of steps from one draw to the next.
        num_chains: Number of chains. Default: that of ``init``, else 4.
        init: Values to start from, shape ``(num_chains, *batch, *event)``; or the ``state`` of an
            earlier run of the same sampler, which continues with the step size and the scales that
            it has learned. Default: draws from the base of an energy-based target, else standard
            normal in unconstrained space.
        check: Whether to look for modes that no chain has visited: a run of at least 1,000 draws of
            an energy-based distribution is compared with 512 draws by ``SMC``, if at least 10 of
            their ancestors are effective. Or values to compare with, shape ``(M, *event)``: only
            data can reveal a mode that ``SMC`` misses too.

    Raises:
        ValueError: If a count is out of range, ``num_chains`` differs from that of ``init``, the
            support does not map to unconstrained space, or a density is not finite at a start.

    Warns:
        UserWarning: If chains diverged, never moved or missed a mode; the draws are returned all
            the same.
    """
    check_positive_integer("num_samples", num_samples)
    check_positive_integer("num_warmup", num_warmup, minimum=0)
    check_positive_integer("thinning", thinning)
    if num_chains is not None:
        check_positive_integer("num_chains", num_chains)
    if init is None:
        return 4 if num_chains is None else num_chains
    shape = tuple((init.position if isinstance(init, ChainState) else init).shape)
    if not shape or not shape[0] or num_chains not in (None, shape[0]):
        expected = "num_chains" if num_chains is None else num_chains
        raise ValueError(f"Expected `init` of shape ({expected}, *batch, *event), got {shape}.")
    return shape[0]


def real_array(name: str, value: Any, convert: Callable[[Any], Any]) -> Any:
    """Convert an argument to an array of floating-point numbers, by a function of the host."""
    got = getattr(value, "dtype", type(value).__name__)
    wrong = TypeError(f"Expected `{name}` to be an array of real numbers, got {got}.")
    try:
        array = convert(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise wrong from error
    if array_namespace(array).isdtype(array.dtype, "complex floating"):
        raise wrong
    return as_real(array)


def check_target(distribution: Any) -> None:
    """Raise ``TypeError`` unless this is a distribution that chains can run on."""
    if isinstance(distribution, type) or not hasattr(distribution, "support"):
        got = getattr(distribution, "__name__", type(distribution).__name__)
        raise TypeError(f"Expected `distribution` to be a distribution, got {got}.")


def check_init_shape(shape: Any, distribution: Any, num_chains: int) -> None:
    """Raise unless initial values have the shape ``(num_chains, *batch, *event)``."""
    expected = (num_chains, *distribution.batch_shape, *distribution.event_shape)
    if tuple(shape) != expected:
        raise ValueError(
            f"Expected `init` of shape {expected} (chains, *batch, *event), got {tuple(shape)}."
        )


def check_init_codes(value: Any, columns: Columns) -> None:
    """Raise unless initial values have codes in the columns of codes."""
    xp = array_namespace(value)
    value = xp.reshape(value, (-1, len(columns)))
    wrong = xp.reshape(~have_codes(columns, value), (-1,))
    if bool(xp.any(wrong)):
        row, c = divmod(int(xp.argmax(xp.astype(wrong, xp.int8))), len(columns))
        raise ValueError(
            f"Expected `init` to have codes 0, ..., {columns[c].size - 1} in column {c}, got "
            f"{float(value[row, c]):g}."
        )


def check_reference(distribution: Any, check: Any, convert: Callable[[Any], Any]) -> Any:
    """Return ``check`` of ``run_chains``, a Boolean or values of the event shape."""
    if isinstance(check, bool):
        return check
    values, event_shape = real_array("check", check, convert), tuple(distribution.event_shape)
    shapes = (event_shape, (*distribution.batch_shape, *event_shape))
    if not values.ndim or not values.shape[0] or tuple(values.shape[1:]) not in shapes:
        raise ValueError(
            f"Expected `check` to be True, False or values of shape (M, *event) with event shape "
            f"{event_shape}, got shape {tuple(values.shape)}."
        )
    return values


def check_start(distribution: Any, potential: Any, gradient: Any) -> None:
    """Raise unless potential and gradient are finite at the initial position of every chain."""
    xp = array_namespace(potential)
    finite = xp.isfinite(potential)
    if gradient is not None:
        finite = finite & is_finite(gradient, potential.ndim)
    num_bad = int(xp.sum(~finite))
    if num_bad:
        raise ValueError(
            f"Expected every chain to start where {distribution} has a finite density and "
            f"gradient, got NaN or infinity in {num_bad} of {math.prod(finite.shape)} chains. Give "
            "`init`, or look at the energy there."
        )


def describe_trouble(
    sampler: Any, distribution: Any, num_warmup: int, acceptance_rate: Any, diverging: Any
) -> Iterator[str]:
    """Yield warnings about a run: too many divergences, chains that are stuck.

    Acceptance rates and divergences have shape ``(num_chains, num_samples, *batch)``.
    """
    remedy = _remedy(sampler, num_warmup)
    xp = array_namespace(acceptance_rate)
    num_transitions, num_diverging = math.prod(diverging.shape), int(xp.sum(diverging))
    if num_diverging > _MANY_DIVERGENCES * num_transitions:
        yield (
            f"{num_diverging} of {num_transitions} kept transitions of {sampler} on "
            f"{distribution} diverged: {remedy}, or look at the energy there."
        )
    mean_rate = xp.mean(acceptance_rate, axis=1)
    if acceptance_rate.shape[1] < _FEW_DRAWS:  # Too few to judge a single chain by.
        mean_rate = 0 * mean_rate + xp.mean(acceptance_rate)
    num_stuck, num_chains = int(xp.sum(mean_rate < _STUCK)), math.prod(mean_rate.shape)
    if num_stuck:
        yield (
            f"{num_stuck} of {num_chains} chains of {sampler} on {distribution} are stuck, "
            f"with a mean acceptance below {_STUCK}: {remedy}, or give starts where the density is "
            "less steep."
        )


def _remedy(sampler: Any, num_warmup: int) -> str:
    if sampler.target_accept_prob is None:
        return "lower its `step_size`"
    if num_warmup < _SHORT_WARMUP:
        return "let a longer warm-up tune its `step_size`, or lower it"
    return "raise its `target_accept_prob`: warm-up then finds a smaller `step_size`"


def describe_divergence(sampler: Any) -> str:
    """Error message for draws that are not finite."""
    return (
        f"Expected {sampler} to give finite draws, got NaN or infinity: lower its `step_size`, or "
        "look at the energy."
    )
