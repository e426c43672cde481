"""Runs of samplers: one independent draw a chain, or whole chains with warm-up."""

import warnings
from typing import Any

import pyro
import torch
from torch import Tensor
from tqdm.auto import trange

from pyro_ebm.core.checks import check_positive_integer, check_start, describe_trouble
from pyro_ebm.diagnostics import Chains
from pyro_ebm.pyro.samplers import ChainState, Sampler, TransitionInfo
from pyro_ebm.pyro.samplers.target import (
    Potential,
    Tilted,
    compiled_steps,
    is_unconstrained,
    to_unconstrained,
    unconstrained_potential,
    value_and_gradient,
)
from pyro_ebm.pyro.samplers.warmup import Warmup

__all__ = ["draw", "kept_draw", "run_chains"]


def draw(
    sampler: Sampler, potential: Potential, position: Tensor, num_steps: int | None = None
) -> Tensor:
    """Positions after ``num_steps`` (default: the sampler's) steps from ``position``; detached."""
    with pyro.validation_enabled(is_validate=False):
        state = sampler.init(potential, position)
        for _ in range(num_steps or sampler.num_steps):
            state, _ = sampler.step(potential, state)
    return state.position


def run_chains(
    sampler: Sampler,
    distribution: Any,
    *,
    num_chains: int = 4,
    num_samples: int = 1000,
    num_warmup: int = 0,
    thinning: int = 1,
    init: Tensor | ChainState | None = None,
    progress_bar: bool = True,
    compile_steps: bool = False,
) -> Chains:
    """Run many chains on a distribution at once.

    Args:
        sampler: For example :class:`MALA`.
        distribution: A Pyro distribution, of any ``batch_shape``.
        num_chains: Number of independent chains.
        num_samples: Draws that are kept of each chain.
        num_warmup: Steps before the first draw. In them a sampler with a ``target_acceptance``
            tunes its step size, and one with ``adapt_scale`` measures every coordinate's
            standard deviation; all chains share what is learned. After that nothing changes.
        thinning: Steps from one draw to the next.
        init: Where the chains start: values of shape ``(num_chains, *batch, *event)``, or the
            ``state`` of an earlier run of this sampler, which goes on from there with the step
            size and the scales that it learned. Default: draws from the base of an energy-based
            distribution, else standard normal in unconstrained space.
        progress_bar: Whether to show one.
        compile_steps: Whether ``torch.compile`` makes one kernel of each step. It takes many
            seconds at first and pays in runs of thousands of steps.

    Returns:
        Chains with samples of shape ``(num_chains, num_samples, *batch, *event)`` and
        statistics ``lp`` (log-density up to a constant), ``acceptance_rate``, ``diverging``,
        ``step_size``, and for an energy-based distribution with a base ``ebm_energy``.

    Raises:
        ValueError: If a count is out of range, ``init`` has another shape, the support cannot be
            mapped to unconstrained space, or chains start where there is no finite density.

    Warns:
        UserWarning: If chains diverged or never moved; the draws are returned all the same.
    """
    check_positive_integer("num_chains", num_chains)
    check_positive_integer("num_samples", num_samples)
    check_positive_integer("num_warmup", num_warmup, minimum=0)
    check_positive_integer("thinning", thinning)
    potential = unconstrained_potential(distribution)
    draws = []
    with pyro.validation_enabled(is_validate=False), compiled_steps(enabled=compile_steps):
        state = _start(sampler, distribution, potential, num_chains, init)
        warmup = Warmup(sampler, state, num_warmup)
        num_steps = num_warmup + num_samples * thinning
        for index in trange(num_steps, disable=not progress_bar, desc=type(sampler).__name__):
            state, info = sampler.step(potential, state)
            if index < num_warmup:
                state = warmup.adapt(index, state, info)
            elif (index - num_warmup + 1) % thinning == 0:
                draws.append(kept_draw(potential, state, info))
        chains = _chains(distribution, draws, state)
    rate, diverging = (chains.statistics[name] for name in ("acceptance_rate", "diverging"))
    for trouble in describe_trouble(sampler, distribution, rate, diverging):
        warnings.warn(trouble, stacklevel=2)
    return chains


def _start(
    sampler: Sampler,
    distribution: Any,
    potential: Potential,
    num_chains: int,
    init: Tensor | ChainState | None,
) -> ChainState:
    bijection = to_unconstrained(distribution)
    shape = torch.Size((num_chains, *distribution.batch_shape, *distribution.event_shape))
    if init is None:
        if isinstance(distribution, Tilted):
            init = distribution.start(torch.Size((num_chains,)))
        else:
            position = torch.randn_like(bijection.inv(distribution.sample((num_chains,))))
            init = bijection(position)
    before = init if isinstance(init, ChainState) else None
    value: Any = init if before is None else bijection(before.position)
    if value.shape != shape:
        raise ValueError(
            f"Expected `init` of shape {tuple(shape)} (chains, *batch, *event), "
            f"got {tuple(value.shape)}."
        )
    # Evaluated anew in any case: the energy may have been trained since.
    state = sampler.init(potential, bijection.inv(value) if before is None else before.position)
    known = state.potential is not None
    evaluated = state[1:3] if known else value_and_gradient(potential, state.position)
    check_start(distribution, *evaluated)
    if before is not None:
        state = before._replace(potential=state.potential, gradient=state.gradient)
    return state


def kept_draw(potential: Potential, state: ChainState, info: TransitionInfo) -> tuple[Any, ...]:
    """Position, potential and what happened, of a draw that is kept."""
    if state.potential is not None:
        return state.position, state.potential, info
    with torch.no_grad():
        value = potential(state.position)
    diverging = info.diverging | ~torch.isfinite(value)
    return state.position, value, info._replace(diverging=diverging)


def _chains(distribution: Any, draws: list[tuple[Any, ...]], state: ChainState) -> Chains:
    positions, potentials, infos = zip(*draws, strict=True)
    position, lp = torch.stack(positions, dim=1), -torch.stack(potentials, dim=1)
    bijection = to_unconstrained(distribution)
    samples = bijection(position)
    if not is_unconstrained(distribution):
        lp = lp - bijection.log_abs_det_jacobian(position, samples)
    statistics = {"lp": lp}
    for name in TransitionInfo._fields:
        statistics[name] = torch.stack([getattr(info, name) for info in infos], dim=1)
    statistics["step_size"] = state.step_size.expand(lp.shape)
    if isinstance(distribution, Tilted) and distribution.base is not None:
        with torch.no_grad():
            statistics["ebm_energy"] = distribution.base.log_prob(samples) - lp
    return Chains(samples, statistics, state)
