"""Normalizing constants of energy-based distributions."""

import warnings
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.tree_util import register_dataclass
from numpyro.util import not_jax_tracer

from pyro_ebm.core.distributions.checks import check_energy_based
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.distributions.pushforward import with_density
from pyro_ebm.core.distributions.tempered import TemperedTarget
from pyro_ebm.core.evidence import log_normalizer as core
from pyro_ebm.core.evidence.annealing import describe_stuck_draws, weights_of_both
from pyro_ebm.core.evidence.weights import bracket, times_share
from pyro_ebm.core.samplers.checks import real_array
from pyro_ebm.core.samplers.gibbs import kernel_for
from pyro_ebm.core.samplers.truncation import (
    NUM_SHARE_DRAWS,
    ancestors_of,
    check_share,
    choose_inside,
    is_inside,
)
from pyro_ebm.numpyro.distributions.energy_based import EnergyBased
from pyro_ebm.numpyro.evidence.annealing import (
    anneal,
    resample_and_move,
    schedule_from_pilot,
)
from pyro_ebm.numpyro.evidence.enumeration import enumerate_values
from pyro_ebm.numpyro.evidence.quadrature import integrate
from pyro_ebm.numpyro.samplers.base import Sampler, check_rng_key
from pyro_ebm.numpyro.samplers.gibbs import default_kernel
from pyro_ebm.numpyro.samplers.mala import MALA
from pyro_ebm.numpyro.samplers.run import run_chains

# Result of a method, and the warnings about it beyond those about its numbers.
Result = tuple[core.LogNormalizer, Iterable[str]]

register_dataclass(core.LogNormalizer)
_anneal = jax.jit(partial(anneal, resamples=True), static_argnames="sampler")


def log_normalizer(
    rng_key: Array,
    distribution: EnergyBased,
    *,
    method: str = "annealed",
    num_samples: int = 1000,
    num_temperatures: int = 100,
    num_moves: int = 100,
    sampler: Sampler | None = None,
    draws: Array | None = None,
) -> core.LogNormalizer:
    r"""Estimate :math:`\log Z` of an energy-based distribution, with a bracket.

    Methods and arguments: :class:`~pyro_ebm.core.evidence.log_normalizer.LogNormalizerSettings`.
    New parameters of the same module compile nothing again. Inside ``jit``, where ``"grid"`` does
    not work, there are no warnings.

    Example:
        >>> import numpyro.distributions as dist, pyro_ebm.numpyro as ebm
        >>> from jax import random
        >>> prior = ebm.EnergyBased(lambda x: 1.5 * x**2, dist.Normal(0.0, 1.0))
        >>> print(ebm.log_normalizer(random.key(0), prior, method="grid"))
        log Z = -0.693 ± 0.000 in [-0.693, -0.693]
    """
    check_rng_key(rng_key)
    check_energy_based(distribution, EnergyBased)
    draws = None if draws is None else real_array("draws", draws, jnp.asarray)
    settings = core.LogNormalizerSettings(
        method=method,
        num_samples=num_samples,
        num_temperatures=num_temperatures,
        num_moves=num_moves,
        sampler=sampler or _default_kernel(distribution, method),
        draws=core.as_values(distribution, draws),
    )
    result, doubts = _METHODS[method](rng_key, distribution, settings)
    if not_jax_tracer(result.estimate):
        core.check_result(distribution, result)
        for doubt in (*core.describe_doubts(distribution, result), *doubts):
            warnings.warn(doubt, stacklevel=2)
    return result


def _default_kernel(distribution: EnergyBased, method: str) -> Sampler | None:
    if method == "importance":
        return None
    return default_kernel(with_density(distribution), MALA(0.1))


def _importance(
    rng_key: Array, distribution: EnergyBased, settings: core.LogNormalizerSettings
) -> Result:
    _check(rng_key, distribution, settings, needs_density=False)
    values, draws = _base_values(rng_key, distribution, settings.num_samples), settings.draws
    reverse = None if draws is None else _log_weights(distribution, draws)
    return _bracket(_log_weights(distribution, values), reverse), ()


def _grid(
    rng_key: Array, distribution: EnergyBased, settings: core.LogNormalizerSettings
) -> Result:
    distribution = with_density(distribution)
    if settings.draws is not None:
        core.check_draws(distribution, settings.draws)
        values = settings.draws
    elif distribution.base is None or distribution._is_truncated:
        values = core.search(distribution, partial(run_chains, rng_key, settings.sampler))
    else:
        _check(rng_key, distribution, settings, needs_density=True)
        values = _base_values(rng_key, distribution, settings.num_samples)
    path = TemperedTarget(distribution)
    return integrate(path, path.target.position(values))


def _enumerated(_: Array, distribution: EnergyBased, *__: Any) -> Result:
    return enumerate_values(with_density(distribution)), ()


def _annealed(
    rng_key: Array, distribution: EnergyBased, settings: core.LogNormalizerSettings
) -> Result:
    distribution = with_density(distribution)
    _check(rng_key, distribution, settings, needs_density=True)
    path = TemperedTarget(distribution)
    sampler = kernel_for(settings.sampler, path.target)
    keys = random.split(rng_key, 5)
    num_starts = core.NUM_PILOTS + settings.num_samples
    num_draws = max(NUM_SHARE_DRAWS, num_starts)
    values, share = _starts(keys[0], distribution, num_starts, num_draws)
    if share is not None and not_jax_tracer(share):
        check_share(distribution, share, num_draws)
    start = path.target.position(values)
    schedule = schedule_from_pilot(
        keys[1], sampler, path, start[: core.NUM_PILOTS], settings.num_temperatures
    )
    starts = start[core.NUM_PILOTS :]
    ancestors = ancestors_of(distribution, values[core.NUM_PILOTS :])
    forward = _anneal(keys[2], sampler, path, schedule, starts, ancestors=ancestors)
    if settings.draws is not None:
        position, doubts = path.target.position(settings.draws), ()
    else:
        ends = forward.position, forward.log_weights, settings.num_moves
        position, rate = resample_and_move(keys[3], sampler, path, schedule, *ends)
        doubts = describe_stuck_draws(distribution, sampler, rate)
    reverse = _anneal(keys[4], sampler, path, schedule.reversed(), position)
    weights = weights_of_both(forward, reverse)
    result = _bracket(**weights, own_draws=settings.draws is None)
    if share is not None:
        result = times_share(result, share, num_draws)
    return result, doubts


def _bracket(
    log_weights: Array, reverse_log_weights: Array | None = None, **options: Any
) -> core.LogNormalizer:
    """Call the core, with NumPy where it can: many small operations are slow to compile."""
    if not not_jax_tracer(log_weights):
        return bracket(log_weights, reverse_log_weights, **options)
    arrays = jax.tree.map(np.asarray, (log_weights, reverse_log_weights))
    with np.errstate(all="ignore"):
        return jax.tree.map(jnp.asarray, bracket(*arrays, **jax.tree.map(np.asarray, options)))


@jax.jit
def _log_weights(distribution: EnergyBased, values: Array) -> Array:
    return lax.stop_gradient(-scaled_energy(distribution, values))


@partial(jax.jit, static_argnames="num_samples")
def _base_values(rng_key: Array, distribution: EnergyBased, num_samples: int) -> Array:
    return distribution.base.sample(rng_key, (num_samples,))


@partial(jax.jit, static_argnames=("num_starts", "num_draws"))
def _starts(
    rng_key: Array, distribution: EnergyBased, num_starts: int, num_draws: int
) -> tuple[Array, Array | None]:
    """Draw from the base inside of a narrower support; return the share that is inside too."""
    if not distribution._is_truncated:
        return distribution.base.sample(rng_key, (num_starts,)), None
    draws = distribution.base.sample(rng_key, (num_draws,))
    return choose_inside(is_inside(distribution, draws), draws, num_starts)


def _check(
    rng_key: Array,
    distribution: EnergyBased,
    settings: core.LogNormalizerSettings,
    *,
    needs_density: bool,
) -> None:
    base = distribution.base

    def use(key: Array) -> Array:
        value = base.sample(key)
        return base.log_prob(value) if needs_density else value

    if settings.draws is not None:
        core.check_draws(distribution, settings.draws)
    core.check_base(distribution, lambda: jax.eval_shape(use, rng_key), needs_density=needs_density)


_METHODS = {
    "importance": _importance,
    "grid": _grid,
    "annealed": _annealed,
    "enumeration": _enumerated,
}
