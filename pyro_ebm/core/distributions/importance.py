"""Draws of a base that cover it evenly."""

from collections.abc import Callable
from math import prod
from typing import Any

from array_api_compat import array_namespace


def stratified(base: Any, draws: Any, uniform: Callable[[], Any]) -> Any:
    """Return draws of a base; in one dimension, one in each stratum between its quantiles.

    Draws of a base without quantiles are returned as they are.

    ``uniform`` draws numbers from 0 to 1 of the shape of ``draws``, ``(N, *batch, *event)``.
    """
    if prod(base.event_shape) != 1 or array_namespace(draws).isdtype(draws.dtype, "integral"):
        return draws
    # Neither the host's independent nor its expanded distributions have quantiles of their own.
    while hasattr(base, "reinterpreted_batch_ndims") or hasattr(base, "_expanded_sizes"):
        base = base.base_dist
    shares = uniform()
    xp, num_draws = array_namespace(shares), shares.shape[0]
    strata = xp.cumulative_sum(xp.ones_like(shares), axis=0) - 1.0
    margin = float(xp.finfo(shares.dtype).eps)
    try:
        return base.icdf(xp.clip((strata + shares) / num_draws, margin, 1.0 - margin))
    except (NotImplementedError, ImportError):  # Some quantiles need another package.
        return draws
