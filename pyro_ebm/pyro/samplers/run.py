"""Runs of samplers: short runs, and chains with warm-up."""

import warnings
from typing import Any

import pyro
import torch
from torch import Tensor
from tqdm.auto import trange

from pyro_ebm.core.samplers import checks
from pyro_ebm.core.samplers.dynamics import ChainState, TransitionInfo
from pyro_ebm.core.samplers.settings import check_sampler
from pyro_ebm.core.samplers.target import HasPotential, check_rows_once
from pyro_ebm.diagnostics import Chains
from pyro_ebm.pyro.samplers.base import Sampler
from pyro_ebm.pyro.samplers.target import (
    Potential,
    Target,
    compiled_steps,
    initial_values,
    real_array,
    value_and_gradient,
)
from pyro_ebm.pyro.samplers.warmup import Warmup


def short_run(sampler: Sampler, potential: Potential, position: Tensor, num_steps: int) -> Tensor:
    """Run some steps from a position; detached."""
    with pyro.validation_enabled(is_validate=False):
        state = sampler.init(potential, position)
        for _ in range(num_steps):
            state, _ = sampler.step(potential, state)
    return state.position


@torch.no_grad()
def move_values(sampler: Sampler, distribution: Any, value: Tensor, num_steps: int) -> Tensor:
    """Run some steps from values in the support; detached."""
    target = Target.of(distribution)
    position = target.position(value)
    return target.value(short_run(sampler, target.potential, position, num_steps))


def run_chains(
    sampler: Sampler,
    distribution: Any,
    *,
    num_samples: int = 1000,
    num_warmup: int = 0,
    thinning: int = 1,
    num_chains: int | None = None,
    init: Tensor | ChainState | None = None,
    progress_bar: bool = True,
    compile_steps: bool = False,
) -> Chains:
    """Run many chains on a Pyro distribution with a continuous support, of any ``batch_shape``.

    Counts, ``init``, defaults and statistics: :func:`pyro_ebm.core.samplers.checks.check_run`.
    With ``compile_steps``, ``torch.compile`` compiles each step: many seconds at first, worth it
    in runs of thousands of steps.

    Raises:
        ValueError: If an argument is out of range, the support cannot be mapped to unconstrained
            space, or the density is not finite at the start of a chain.

    Warns:
        UserWarning: If chains diverged or never moved; the draws are returned all the same.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_ebm.pyro import MALA, run_chains
        >>> normal = dist.Normal(0.0, 1e-3)
        >>> chains = run_chains(MALA(), normal, num_samples=50, num_warmup=50, progress_bar=False)
        >>> chains.samples.shape
        torch.Size([4, 50])
    """
    check_sampler(sampler)
    checks.check_target(distribution)
    init = init if isinstance(init, ChainState | None) else real_array("init", init)
    num_chains = checks.check_run(num_samples, num_warmup, thinning, num_chains, init)
    target, validates = Target.of(distribution), distribution._validate_args
    draws = []
    with pyro.validation_enabled(is_validate=False), compiled_steps(enabled=compile_steps):
        state = _start(sampler, distribution, target, num_chains, init, probes=validates)
        warmup = Warmup(sampler, state, num_warmup)
        num_steps = num_warmup + num_samples * thinning
        for index in trange(num_steps, disable=not progress_bar, desc=type(sampler).__name__):
            state, info = sampler.step(target.potential, warmup.braked(state))
            if index < num_warmup:
                state = warmup.adapt(index, state, info)
            elif (index - num_warmup + 1) % thinning == 0:
                draws.append(kept_draw(target.potential, state, info))
        chains = _chains(distribution, target, draws, state)
    rate, diverging = (chains.statistics[name] for name in ("acceptance_rate", "diverging"))
    for trouble in checks.describe_trouble(sampler, distribution, num_warmup, rate, diverging):
        warnings.warn(trouble, stacklevel=2)
    return chains


def kept_draw(potential: Potential, state: ChainState, info: TransitionInfo) -> tuple[Any, ...]:
    """Position, potential and statistics of a draw that is kept."""
    if state.potential is not None:
        return state.position, state.potential, info
    with torch.no_grad():
        value = potential(state.position)
    diverging = info.diverging | ~torch.isfinite(value)
    return state.position, value, info._replace(diverging=diverging)


def _start(
    sampler: Sampler, distribution: Any, target: Target, num_chains: int, init: Any, *, probes: bool
) -> ChainState:
    if init is None:
        init = initial_values(distribution, (num_chains,))
    before = init if isinstance(init, ChainState) else None
    value: Any = init if before is None else target.value(before.position)
    checks.check_init_shape(value.shape, distribution, num_chains)
    if isinstance(distribution, HasPotential) and probes:
        check_rows_once(distribution, value)
    # Evaluated anew in any case: the energy may have been trained since.
    position = target.position(value) if before is None else before.position
    state = sampler.init(target.potential, position)
    known = state.potential is not None
    evaluated = state[1:3] if known else value_and_gradient(target.potential, state.position)
    checks.check_start(distribution, *evaluated)
    if before is not None:
        state = before._replace(potential=state.potential, gradient=state.gradient)
    return state


def _chains(
    distribution: Any, target: Target, draws: list[tuple[Any, ...]], state: ChainState
) -> Chains:
    positions, potentials, infos = zip(*draws, strict=True)
    position, lp = torch.stack(positions, dim=1), -torch.stack(potentials, dim=1)
    samples = target.value(position)
    if not target.is_unconstrained:
        lp = lp - target.log_volume(position, samples)
    statistics = {"lp": lp}
    for name in TransitionInfo._fields:
        statistics[name] = torch.stack([getattr(info, name) for info in infos], dim=1)
    statistics["step_size"] = state.step_size.expand(lp.shape)
    if isinstance(distribution, HasPotential) and distribution.base is not None:
        with torch.no_grad():
            statistics["ebm_energy"] = distribution.base.log_prob(samples) - lp
    return Chains(samples, statistics, state)
