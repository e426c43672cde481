"""Units of coordinates, from values and gradients: of one mode, where a density has several."""

from typing import Any

from array_api_compat import array_namespace

from pyro_ebm.core.numerics import as_real, at_least_single, expand_right, masked_std
from pyro_ebm.core.samplers.dynamics import ChainState


def local_scale(spread: Any, gradient_spread: Any, otherwise: Any) -> Any:
    r"""Return units of coordinates, from standard deviations of values and of gradients.

    .. math:: s = \sqrt{\mathrm{sd}(x) / \mathrm{sd}(\nabla U)}

    This is the standard deviation of a Gaussian, also when the values are a part of it. Where a
    density has several modes it is near the width of one, not their distance.

    Args:
        spread: :math:`\mathrm{sd}(x)`.
        gradient_spread: :math:`\mathrm{sd}(\nabla U)`.
        otherwise: Units of coordinates for which one of them is zero or not finite.

    References:
        | Preconditioning Hamiltonian Monte Carlo by minimizing Fisher divergence (Seyboldt, Carlson
          and Carpenter, 2026)
    """
    xp = array_namespace(spread)
    usable = (spread > 0) & (gradient_spread > 0) & xp.isfinite(spread + gradient_spread)
    ones = xp.ones_like(spread)
    ratio = xp.where(usable, spread, ones) / xp.where(usable, gradient_spread, ones)
    return xp.where(usable, xp.sqrt(ratio), otherwise)


def local_units(position: Any, potential: Any, gradient: Any, otherwise: Any) -> Any:
    """Return units of coordinates from chains at one temperature, of those with a density.

    Args:
        position: Shape ``(num_chains, *batch, *event)``.
        potential: Shape ``(num_chains, *batch)``.
        gradient: Shape of ``position``; None where there are none, and units are spreads.
        otherwise: Units of coordinates without a spread.
    """
    xp = array_namespace(potential)
    alive = expand_right(xp.isfinite(potential), position.ndim)
    position = as_real(position)
    spread = masked_std(alive, at_least_single(position))
    scale = xp.where(spread > 0, spread, xp.ones_like(spread) * otherwise)
    if gradient is not None:
        scale = local_scale(spread, masked_std(alive, at_least_single(gradient)), scale)
    return xp.astype(scale, position.dtype)


def in_local_units(sampler: Any, state: ChainState) -> ChainState:
    """Measure coordinates in the units of chains at one temperature, if the kernel learns any."""
    if not learns_scales(sampler):
        return state
    scale = local_units(state.position, state.potential, state.gradient, state.scale)
    return state._replace(scale=scale)


def learns_scales(sampler: Any) -> bool:
    """Return whether a kernel tunes its step size in units that a warm-up learns."""
    return (
        sampler.target_accept_prob is not None
        and sampler.adapt_mass_matrix
        and not hasattr(sampler, "temperatures")
    )
