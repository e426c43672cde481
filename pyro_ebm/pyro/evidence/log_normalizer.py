"""Normalizing constants of energy-based distributions."""

import warnings
from collections.abc import Iterable
from functools import partial

import pyro
import torch
from torch import Tensor

from pyro_ebm.core.distributions.checks import check_energy_based
from pyro_ebm.core.distributions.energy_based import scaled_energy
from pyro_ebm.core.distributions.pushforward import with_density
from pyro_ebm.core.distributions.tempered import TemperedTarget
from pyro_ebm.core.evidence import log_normalizer as core
from pyro_ebm.core.evidence.annealing import describe_stuck_draws, weights_of_both
from pyro_ebm.core.evidence.weights import bracket, times_share
from pyro_ebm.core.samplers.gibbs import kernel_for
from pyro_ebm.core.samplers.truncation import (
    NUM_SHARE_DRAWS,
    ancestors_of,
    check_share,
    choose_inside,
    is_inside,
)
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.evidence.annealing import (
    anneal,
    resample_and_move,
    schedule_from_pilot,
)
from pyro_ebm.pyro.evidence.enumeration import enumerate_values
from pyro_ebm.pyro.evidence.quadrature import integrate
from pyro_ebm.pyro.samplers.base import Sampler
from pyro_ebm.pyro.samplers.gibbs import default_kernel
from pyro_ebm.pyro.samplers.mala import MALA
from pyro_ebm.pyro.samplers.run import run_chains
from pyro_ebm.pyro.samplers.target import real_array

# Result of a method, and the warnings about it beyond those about its numbers.
Result = tuple[core.LogNormalizer, Iterable[str]]


def log_normalizer(
    distribution: EnergyBased,
    *,
    method: str = "annealed",
    num_samples: int = 1000,
    num_temperatures: int = 100,
    num_moves: int = 100,
    sampler: Sampler | None = None,
    draws: Tensor | None = None,
) -> core.LogNormalizer:
    r"""Estimate :math:`\log Z` of an energy-based distribution, with a bracket.

    Methods and arguments: :class:`~pyro_ebm.core.evidence.log_normalizer.LogNormalizerSettings`.

    Example:
        >>> import pyro.distributions as dist, pyro_ebm.pyro as ebm
        >>> prior = ebm.EnergyBased(lambda x: 1.5 * x**2, dist.Normal(0.0, 1.0))
        >>> print(ebm.log_normalizer(prior, method="grid"))
        log Z = -0.693 ± 0.000 in [-0.693, -0.693]
    """
    check_energy_based(distribution, EnergyBased)
    draws = None if draws is None else real_array("draws", draws)
    settings = core.LogNormalizerSettings(
        method=method,
        num_samples=num_samples,
        num_temperatures=num_temperatures,
        num_moves=num_moves,
        sampler=sampler or _default_kernel(distribution, method),
        draws=core.as_values(distribution, draws),
    )
    result, doubts = _METHODS[method](distribution, settings)
    core.check_result(distribution, result)
    for doubt in (*core.describe_doubts(distribution, result), *doubts):
        warnings.warn(doubt, stacklevel=2)
    return result


def _default_kernel(distribution: EnergyBased, method: str) -> Sampler | None:
    if method == "importance":
        return None
    return default_kernel(with_density(distribution), MALA(0.1))


@torch.no_grad()
def _importance(distribution: EnergyBased, settings: core.LogNormalizerSettings) -> Result:
    _check(distribution, settings, needs_density=False)
    values, draws = distribution.base.sample((settings.num_samples,)), settings.draws
    reverse = None if draws is None else _log_weights(distribution, draws)
    return bracket(_log_weights(distribution, values), reverse), ()


def _grid(distribution: EnergyBased, settings: core.LogNormalizerSettings) -> Result:
    distribution = with_density(distribution)
    if settings.draws is not None:
        core.check_draws(distribution, settings.draws)
        values = settings.draws
    elif distribution.base is None or distribution._is_truncated:
        values = core.search(distribution, partial(run_chains, settings.sampler))
    else:
        _check(distribution, settings, needs_density=True)
        values = distribution.base.sample((settings.num_samples,))
    path = TemperedTarget(distribution)
    return integrate(path, path.target.position(values))


def _enumerated(distribution: EnergyBased, _: core.LogNormalizerSettings) -> Result:
    return enumerate_values(with_density(distribution)), ()


def _annealed(distribution: EnergyBased, settings: core.LogNormalizerSettings) -> Result:
    distribution = with_density(distribution)
    _check(distribution, settings, needs_density=True)
    path = TemperedTarget(distribution)
    sampler = kernel_for(settings.sampler, path.target)
    with pyro.validation_enabled(is_validate=False):
        values, share = _starts(distribution, core.NUM_PILOTS + settings.num_samples)
        # Now: NaN in the positions of chains is a cryptic error of the base.
        log_weights = _log_weights(distribution, values)
        core.check_log_weights(distribution, log_weights, "draws of the base")
        start = path.target.position(values)
        schedule = schedule_from_pilot(
            sampler, path, start[: core.NUM_PILOTS], settings.num_temperatures
        )
        starts = start[core.NUM_PILOTS :]
        ancestors = ancestors_of(distribution, values[core.NUM_PILOTS :])
        forward = anneal(sampler, path, schedule, starts, resamples=True, ancestors=ancestors)
        if settings.draws is not None:
            position, doubts = path.target.position(settings.draws), ()
        else:
            ends = forward.position, forward.log_weights, settings.num_moves
            position, rate = resample_and_move(sampler, path, schedule, *ends)
            doubts = describe_stuck_draws(distribution, sampler, rate)
        reverse = anneal(sampler, path, schedule.reversed(), position, resamples=True)
    weights = weights_of_both(forward, reverse)
    result = bracket(**weights, own_draws=settings.draws is None)
    return result if share is None else times_share(result, *share), doubts


@torch.no_grad()
def _log_weights(distribution: EnergyBased, values: Tensor) -> Tensor:
    return -scaled_energy(distribution, values)


def _starts(distribution: EnergyBased, num_starts: int) -> tuple[Tensor, tuple[Tensor, int] | None]:
    """Draws of the base inside of a narrower support, and the share that is, from so many."""
    if not distribution._is_truncated:
        return distribution.base.sample((num_starts,)), None
    num_draws = max(NUM_SHARE_DRAWS, num_starts)
    draws = distribution.base.sample((num_draws,))
    values, share = choose_inside(is_inside(distribution, draws), draws, num_starts)
    check_share(distribution, share, num_draws)
    return values, (share, num_draws)


def _check(
    distribution: EnergyBased, settings: core.LogNormalizerSettings, *, needs_density: bool
) -> None:
    base = distribution.base

    def use() -> None:
        value = base.sample()
        if needs_density:
            base.log_prob(value)

    if settings.draws is not None:
        core.check_draws(distribution, settings.draws)
    core.check_base(distribution, use, needs_density=needs_density)


_METHODS = {
    "importance": _importance,
    "grid": _grid,
    "annealed": _annealed,
    "enumeration": _enumerated,
}
