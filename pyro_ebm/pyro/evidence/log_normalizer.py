"""Normalizing constants of energy-based distributions."""

import warnings
from collections.abc import Iterable

import pyro
import torch
from torch import Tensor

from pyro_ebm.core.checks import check_choice, check_positive_integer
from pyro_ebm.core.evidence.quadrature import describe_open_box
from pyro_ebm.core.evidence.weights import (
    LogNormalizer,
    bracket,
    check_log_weights,
    describe_doubts,
    describe_stuck_draws,
)
from pyro_ebm.pyro.distributions.energy_based import EnergyBased
from pyro_ebm.pyro.distributions.pushforward import Pushforward
from pyro_ebm.pyro.evidence.annealing import check_exact, make_draws, plan, walk
from pyro_ebm.pyro.evidence.quadrature import integrate
from pyro_ebm.pyro.samplers import MALA, Sampler
from pyro_ebm.pyro.samplers.run import run_chains
from pyro_ebm.pyro.samplers.target import to_unconstrained

__all__ = ["log_normalizer"]

# Chains of the pilot run, or those that find where the density is.
_NUM_PILOTS = 100
# Steps in which the latter find it.
_NUM_SEARCH_STEPS = 300
# Where paths start, in words.
_BASE, _DRAWS = "draws of the base", "`draws`"


def log_normalizer(
    distribution: EnergyBased,
    *,
    method: str = "annealed",
    num_samples: int = 1000,
    num_temperatures: int = 100,
    num_moves: int = 100,
    sampler: Sampler | None = None,
    draws: Tensor | None = None,
) -> LogNormalizer:
    r"""Estimate :math:`\log Z` of :math:`p(x) = e^{-E(x)} p_0(x) / Z`, and bracket it.

    ``"importance"`` draws from the base: :math:`Z = \mathrm E_{p_0}[e^{-E(x)}]`.

    ``"annealed"`` walks from the base to the distribution through
    :math:`p_k \propto e^{-\beta_k E} p_0`, :math:`0 = \beta_0 < \dots < \beta_K = 1`, with a step
    of the sampler at each, and back; paths weigh
    :math:`\log w = -\sum_k (\beta_k - \beta_{k-1}) E(x_{k-1})`. Where the :math:`\beta_k` lie,
    and the step size at each, is learned by a pilot run of 100 other chains, so that the weights
    are unbiased. The way back starts at the ends of the way there, drawn by their weights and
    then moved ``num_moves`` times at :math:`\beta = 1`. The weights alone make them draws of the
    distribution as ``num_samples`` grows; the moves make different draws of equal ones, so take
    as many as chains need to forget where they were, or give exact ``draws``.

    ``"grid"`` integrates in one to three dimensions, in unconstrained space, with or without a
    base, on ever finer grids until the bounds are 0.001 nats apart or there are two million
    points.

    :func:`~pyro_ebm.core.evidence.weights.bracket` says what ``lower`` and ``upper`` promise, and
    :func:`~pyro_ebm.core.evidence.quadrature.summarize_grid` does for ``"grid"``. With ``"importance"``
    ``upper`` is infinite unless there are ``draws``.

    Cost in gradients, with MALA: ``2 * num_temperatures + 1`` for each path there and each path
    back, ``num_moves`` for each draw, 40,000 for the pilot run.

    Args:
        distribution: Energy-based distribution; unless on a grid, with a base that can be
            sampled and, for ``"annealed"``, has a density. On a :class:`Pushforward` base the
            last two methods go to its ``latent``, which has the same log-normalizer.
        method: ``"annealed"``, ``"importance"`` or ``"grid"``.
        num_samples: Independent weights; ``"annealed"`` has as many reverse ones.
        num_temperatures: :math:`K`.
        num_moves: Steps between the way there and the way back.
        sampler: Kernel that leaves a density invariant, for ``"annealed"``. Its step size is
            where tuning towards its ``target_acceptance`` starts. Default: ``MALA(0.1)``.
        draws: Independent draws of the distribution from elsewhere, shape
            ``(num_draws, *batch, *event)`` (of its ``latent``, where that is walked on), to start
            the way back from, or to look around on a grid.

    Returns:
        Record of arrays of the base's batch shape.

    Raises:
        ValueError: If the base cannot do what the method needs, the sampler is not exact,
            energies at draws of the base are NaN, or an argument is out of range.

    Warns:
        UserWarning: If there are fewer than 10 effective samples, the bracket is wider than one
            nat, the chains that make draws are stuck, or no box encloses the density.

    References:
        | Annealed importance sampling (Neal, 2001)
        | Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse, Ghahramani
          and Adams, 2015)
        | The exponentially convergent trapezoidal rule (Trefethen and Weideman, 2014)
    """
    check_choice("method", method, ("annealed", "importance", "grid"))
    check_positive_integer("num_samples", num_samples)
    check_positive_integer("num_temperatures", num_temperatures)
    check_positive_integer("num_moves", num_moves)
    kernel = sampler if sampler is not None else MALA(0.1)
    if isinstance(distribution.base, Pushforward) and method != "importance":
        distribution = distribution.latent
    if draws is not None:
        _check_draws(distribution, draws)
    if method == "grid":
        result, doubts = _grid(distribution, kernel, num_samples, draws)
    elif method == "importance":
        result, doubts = _importance(distribution, num_samples, draws)
    else:
        counts = num_samples, num_temperatures, num_moves
        result, doubts = _annealed(distribution, kernel, *counts, draws)
    for doubt in (*describe_doubts(distribution, result), *doubts):
        warnings.warn(doubt, stacklevel=2)
    return result


# What a method finds, and what casts doubt on it beside the numbers themselves.
Result = tuple[LogNormalizer, Iterable[str]]


def _importance(distribution: EnergyBased, num_samples: int, draws: Tensor | None) -> Result:
    _check_base(distribution, needs_density=False)
    log_weights = distribution.importance_log_weights(num_samples)
    check_log_weights(distribution, log_weights, _BASE)
    if draws is None:
        return bracket(log_weights), ()
    with torch.no_grad():
        reverse = -distribution.evaluate(draws)
    check_log_weights(distribution, reverse, _DRAWS)
    return bracket(log_weights, reverse), ()


def _annealed(
    distribution: EnergyBased,
    sampler: Sampler,
    num_samples: int,
    num_temperatures: int,
    num_moves: int,
    draws: Tensor | None,
) -> Result:
    _check_base(distribution, needs_density=True)
    check_exact(sampler)
    bijection = to_unconstrained(distribution)
    with pyro.validation_enabled(is_validate=False):
        start = bijection.inv(distribution.base.sample((_NUM_PILOTS + num_samples,)))
        path = plan(distribution, sampler, start[:_NUM_PILOTS], num_temperatures)
        position, log_weights = walk(distribution, sampler, path, start[_NUM_PILOTS:])
        check_log_weights(distribution, log_weights, _BASE)
        if draws is None:
            position, acceptance = make_draws(
                distribution, sampler, path.step_sizes[-1], position, log_weights, num_moves
            )
            doubts = describe_stuck_draws(distribution, sampler, acceptance)
        else:
            position, doubts = bijection.inv(draws), ()
        _, gain = walk(distribution, sampler, path.reversed(), position)
    check_log_weights(distribution, -gain, _DRAWS)
    return bracket(log_weights, -gain, own_draws=draws is None), doubts


def _grid(
    distribution: EnergyBased, sampler: Sampler, num_samples: int, draws: Tensor | None
) -> Result:
    bijection = to_unconstrained(distribution)
    if draws is not None:
        position = bijection.inv(draws)
    elif distribution.base is not None:
        _check_base(distribution, needs_density=True)
        position = bijection.inv(distribution.base.sample((num_samples,)))
    else:
        position = _search(distribution, sampler)
    result, log_density, box = integrate(distribution, position)
    return result, describe_open_box(distribution, log_density, box)


def _search(distribution: EnergyBased, sampler: Sampler) -> Tensor:
    """Positions where the density is, found by chains, for there is no base that says where."""
    with warnings.catch_warnings():
        # Divergent and stuck chains matter to draws, not to a search.
        warnings.filterwarnings("ignore", r"\d+ of \d+ (transitions|chains) ", UserWarning)
        chains = run_chains(
            sampler,
            distribution,
            num_chains=_NUM_PILOTS,
            num_samples=1,
            num_warmup=_NUM_SEARCH_STEPS,
            progress_bar=False,
        )
    values = chains.samples.reshape((-1, *distribution.event_shape))
    return to_unconstrained(distribution).inv(values)


def _check_base(distribution: EnergyBased, *, needs_density: bool) -> None:
    base = distribution.base
    if base is None:
        raise ValueError(
            "Expected a distribution with a base to start from, got base=None; in up to three "
            "dimensions method 'grid' needs none."
        )
    try:
        value = base.sample()
        if needs_density:
            base.log_prob(value)
    except NotImplementedError as error:
        wanted = "sample and log_prob" if needs_density else "sample"
        raise ValueError(f"Expected a base with {wanted}, got {base}.") from error


def _check_draws(distribution: EnergyBased, draws: Tensor) -> None:
    batch_shape = distribution.base.batch_shape if distribution.base is not None else ()
    expected = (*batch_shape, *distribution.event_shape)
    if draws.ndim != 1 + len(expected) or draws.shape[1:] != expected:
        raise ValueError(
            f"Expected `draws` of shape (num_draws, *batch, *event) with {tuple(expected)} after "
            f"the first, got {tuple(draws.shape)}."
        )
